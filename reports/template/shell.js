"use strict";
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const remembered = { get: () => { try { return localStorage.getItem("lemmata-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("lemmata-theme", value); } catch { /* storage is not allowed: the choice lasts for this page */ } } };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
    document.dispatchEvent(new Event("themechange")); };
  const kept = remembered.get();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; remembered.set(root.dataset.theme); label(); });
  prefersDark.addEventListener("change", label);
  label();

  const links = [...document.querySelectorAll(".contents a[href^='#']")];
  const targets = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  const mark = () => {
    let current = -1;
    targets.forEach((target, index) => { if (target && target.getBoundingClientRect().top < innerHeight * 0.35) current = index; });
    links.forEach((link, index) => { if (index === current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current"); });
  };
  let waiting = false;
  addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; mark(); }); } }, { passive: true });
  mark();
  const contents = document.querySelector(".contents details");
  const wide = () => document.querySelectorAll(".formula").forEach((one) => { if (one.scrollWidth > one.clientWidth) one.tabIndex = 0; else one.removeAttribute("tabindex"); });
  addEventListener("resize", wide); document.fonts.ready.then(wide);
  const narrow = matchMedia("(max-width: 60rem)");
  const fit = () => { contents.open = !narrow.matches; };
  narrow.addEventListener("change", fit);
  fit();
  let opened = [];
  addEventListener("beforeprint", () => { opened = [...document.querySelectorAll("main details:not([open])")]; opened.forEach((one) => { one.open = true; }); });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
})();
