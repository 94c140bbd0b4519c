// Visits the page with a real browser, and prints what was seen there as JSON:
//     NODE_PATH=…/node_modules node browse.js CHROMIUM URL DIRECTORY NAME
"use strict";
const { readFileSync } = require("node:fs");
const { chromium } = require("playwright-core");

const [, , program, url, directory, name] = process.argv;
const checker = readFileSync(require.resolve("axe-core/axe.min.js"), "utf-8");
const seen = { requests: [], complaints: [], looks: {} };

// A page in a window of its own, of which every request and complaint is noted.
async function opened(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("console", (line) => seen.complaints.push(line.text()));
  page.on("pageerror", (error) => seen.complaints.push(error.message));
  await page.goto(url, { waitUntil: "networkidle" });
  return page;
}

// How it looks, and what a checker for accessibility says, with all that can be folded shown and not.
async function looked(browser, width, scheme) {
  const page = await opened(browser, { viewport: { width, height: 900 }, colorScheme: scheme });
  const look = {};
  look.overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  await page.evaluate(checker);
  const check = () => page.evaluate(async () => {
    const found = await axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
    return found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ").slice(0, 500)}`);
  });
  look.violations = await check();
  const first = page.locator(".packages details").first();
  if (await first.count()) await first.evaluate((one) => { one.open = true; });
  await page.screenshot({ path: `${directory}/page-${name}-${width}-${scheme}.png`, fullPage: true });
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  look.violations.push(...await check());
  await page.context().close();
  return look;
}

// Where the tabulator leads, in order, whether that can be seen, and where the first of it leads.
async function tabbed(browser) {
  const page = await opened(browser);
  const stops = [];
  for (let step = 0; step < 60; step += 1) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const one = document.activeElement;
      if (one === document.body) return null;
      const style = getComputedStyle(one);
      const place = one.getBoundingClientRect();
      const visible = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && place.width > 0 && place.right > 0;
      return { what: one.id || one.textContent.trim().replace(/\s+/g, " ").slice(0, 60), tag: one.localName, visible };
    });
    if (stop === null) break;
    stops.push(stop);
  }
  await page.reload();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  const skipped = await page.evaluate(() => document.activeElement.id);
  await page.context().close();
  return { stops, skipped };
}

// All of it by a browser that runs no scripts.
async function plain(browser) {
  const page = await opened(browser, { javaScriptEnabled: false });
  const found = { buttons: await page.locator("button.copy:visible").count() };
  found.lines = await page.locator("#setup code").count();
  await page.locator("#q").fill("zope.interface");
  await page.keyboard.press("Enter");
  await page.waitForURL(/q=zope/);
  found.names = await page.locator(".packages .name").allTextContents();
  const summary = page.locator(".packages summary").first();
  if (await summary.count()) {
    await summary.focus();
    await page.keyboard.press("Enter");
    found.table = await page.locator(".packages table").first().isVisible();
  }
  await page.context().close();
  return found;
}

// What a button puts where, with the browser's clipboard and without.
async function copied(browser, without) {
  const page = await opened(browser, { permissions: without ? [] : ["clipboard-read", "clipboard-write"] });
  if (without) {
    await page.addInitScript(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
    await page.reload();
  }
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  const line = page.locator(".line").nth(1);
  const wanted = await line.locator("code").textContent();
  await line.locator("button").click();
  await page.waitForFunction(() => document.getElementById("spoken").textContent !== "");
  const said = await page.locator("#spoken").textContent();
  await page.locator("#q").focus();
  await page.keyboard.press("ControlOrMeta+V");
  // The field takes as much of it as it may.
  const pasted = await page.locator("#q").inputValue();
  await page.context().close();
  return { wanted: wanted.slice(0, 100), pasted, said };
}

// Whether what happens while somebody looks comes to be seen.
async function refreshed(browser) {
  const page = await opened(browser);
  const place = page.locator('[data-live="requests"]');
  const before = await place.textContent();
  await page.request.get(`${url}npm/left`);
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await page.waitForFunction((old) => document.querySelector('[data-live="requests"]').textContent !== old, before);
  const after = await place.textContent();
  await page.context().close();
  return [before, after];
}

(async () => {
  const browser = await chromium.launch({ executablePath: program });
  try {
    for (const width of [1280, 390]) {
      for (const scheme of ["light", "dark"]) seen.looks[`${width} ${scheme}`] = await looked(browser, width, scheme);
    }
    seen.keyboard = await tabbed(browser);
    seen.plain = await plain(browser);
    seen.copies = [await copied(browser, false), await copied(browser, true)];
    seen.refreshed = await refreshed(browser);
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify(seen));
})();
