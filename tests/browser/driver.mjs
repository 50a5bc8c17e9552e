// Drives one browser by commands: a JSON object a line on standard input, an answer a line on standard output.
// usage: node driver.mjs chromium|firefox '{"executable": PATH, "args": [...], "prefs": {...}, "profile": DIRECTORY}'
import readline from 'node:readline';

const [kind, optionText] = process.argv.slice(2);
const options = JSON.parse(optionText);

async function chromium() {
  const { chromium } = await import('playwright-core');
  const browser = await chromium.launch({ executablePath: options.executable, headless: true, args: options.args });
  let page, context;
  return {
    close: () => browser.close(),
    open: async ({ url, width, height, dark }) => {
      await context?.close();
      complaints.length = 0;
      context = await browser.newContext({
        ignoreHTTPSErrors: true, viewport: { width, height }, deviceScaleFactor: 1, colorScheme: dark ? 'dark' : 'light',
      });
      page = await context.newPage();
      listen(page);
      await page.goto(url);
    },
    evaluate: ({ code }) => page.evaluate(code),
    click: ({ selector }) => page.click(selector, { timeout: 10_000 }),
    select: ({ selector, value }) => page.selectOption(selector, value),
    fill: ({ selector, value }) => page.fill(selector, value),
    screenshot: ({ path }) => page.screenshot({ path, fullPage: true }),
    resize: ({ width, height }) => page.setViewportSize({ width, height }),
  };
}

async function firefox() {
  const { default: puppeteer } = await import('puppeteer-core');
  const browser = await puppeteer.launch({
    browser: 'firefox', executablePath: options.executable, headless: true, acceptInsecureCerts: true,
    extraPrefsFirefox: options.prefs, ...(options.profile ? { userDataDir: options.profile } : {}),
  });
  const page = await browser.newPage();
  listen(page);
  return {
    close: () => browser.close(),
    open: async ({ url, width, height }) => {
      complaints.length = 0;
      await page.setViewport({ width, height });
      await page.goto(url);
    },
    evaluate: ({ code }) => page.evaluate(code),
    click: ({ selector }) => page.click(selector),
    select: ({ selector, value }) => page.select(selector, value),
    screenshot: ({ path }) => page.screenshot({ path, fullPage: true }),
  };
}

const complaints = [];
function listen(page) {
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
}

const reply = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const browser = await (kind === 'firefox' ? firefox() : chromium());
reply({ ready: true });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line);
  try {
    const value = command === 'complaints' ? complaints.splice(0) : await browser[command](parameters);
    reply({ value: value ?? null });
  } catch (error) {
    reply({ error: String(error?.stack ?? error) });
  }
}
await browser.close();
process.exit(0);
