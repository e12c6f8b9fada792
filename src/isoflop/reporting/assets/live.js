"use strict";
// Puts what is new in its place every few seconds; the reader's place, language, opened details and
// focus stay. Nothing but this machine's own page is asked.
(() => {
  const seconds = 5;
  let mark = "";
  const opened = (root) => [...root.querySelectorAll("details")].map((d) => d.open);
  const path = (element) => {
    const steps = [];
    for (let e = element; e && e !== document.body; e = e.parentElement)
      steps.unshift([...e.parentElement.children].indexOf(e));
    return steps;
  };
  const at = (steps) => steps.reduce((e, i) => e && e.children[i], document.body);
  const swap = (fresh) => {
    const focus = document.activeElement;
    const place = focus && focus !== document.body ? path(focus) : null;
    const open = opened(document), y = scrollY;
    for (const part of ["header", ".columns", "footer", "#report-data"]) {
      const old = document.querySelector(part), now = fresh.querySelector(part);
      if (old && now) old.replaceWith(document.adoptNode(now));
    }
    document.title = fresh.title;
    document.querySelectorAll("details").forEach((d, i) => { d.open = open[i] || false; });
    scrollTo({ top: y, behavior: "instant" });
    const again = place && at(place);
    if (again) again.focus({ preventScroll: true });
  };
  const look = async () => {
    try {
      const said = await fetch("/", { headers: mark ? { "If-None-Match": mark } : {} });
      if (said.status === 200) {
        const first = mark === "";
        mark = said.headers.get("ETag") || "";
        const page = await said.text();
        if (!first) swap(new DOMParser().parseFromString(page, "text/html"));
      }
    } catch (error) { /* the server has ended: the page stays as it is */ }
    setTimeout(look, 1000 * seconds);
  };
  addEventListener("load", look);
})();
