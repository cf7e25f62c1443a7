() => {
  const faults = [], shown = e => e.checkVisibility({checkVisibilityCSS: true}) && e.getClientRects().length;
  const told = e => e.tagName + ' ' + (e.className.baseVal ?? e.className) + ' ' + (e.textContent || '').trim().slice(0, 40);
  const all = s => [...document.querySelectorAll(s)];
  if (!document.documentElement.lang) faults.push('no language');
  if (all('h1').length !== 1) faults.push('not one h1');
  if (all('main').length !== 1) faults.push('not one main');
  let level = 0;
  for (const h of all('h1,h2,h3,h4')) { const n = +h.tagName[1]; if (n > level + 1) faults.push('heading skips: ' + told(h)); level = n; }
  for (const e of all('input,select,textarea'))
    if (!(e.labels && e.labels.length && e.labels[0].textContent.trim()) && !e.getAttribute('aria-label')) faults.push('no label: ' + e.name);
  for (const e of all('img')) if (!e.getAttribute('alt')) faults.push('no alternative: ' + e.src.slice(0, 60));
  for (const e of all('a,button,summary'))
    if (!(e.getAttribute('aria-label') || e.textContent).trim()) faults.push('no name: ' + e.outerHTML.slice(0, 80));
  for (const e of all('svg')) if (!e.getAttribute('aria-label') && e.getAttribute('aria-hidden') !== 'true') faults.push('svg: ' + told(e));
  for (const e of all('nav,section,form,[role=region]'))
    if (!e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')) faults.push('no name: ' + told(e));
  const ids = all('[id]').map(e => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push('id twice: ' + id);
  for (const e of all('[aria-labelledby]')) if (!document.getElementById(e.getAttribute('aria-labelledby'))) faults.push('labelled by nothing');
  for (const e of all('th')) if (!e.scope) faults.push('th without scope: ' + told(e));

  const numbers = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { let layers = []; for (; e; e = e.parentElement) layers.push(numbers(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((under, c) => over(c, under), [255, 255, 255, 1]); };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const e = node.parentElement, style = getComputedStyle(e);
    if (!node.data.trim() || !shown(e) || ['SCRIPT', 'STYLE', 'OPTION', 'TITLE', 'title'].includes(e.tagName)) continue;
    const under = ground(e), colour = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [light(over(numbers(colour), under)), light(under)].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && +style.fontWeight >= 700);
    if ((a + .05) / (b + .05) < (large ? 3 : 4.5)) faults.push('contrast ' + ((a + .05) / (b + .05)).toFixed(2) + ': ' + told(e));
  }
  for (const e of all('input,select')) {
    const s = getComputedStyle(e), [a, b] = [light(numbers(s.borderColor)), light(ground(e.parentElement))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 3) faults.push('border ' + ((a + .05) / (b + .05)).toFixed(2) + ': ' + e.name);
  }
  return [...new Set(faults)];
}
