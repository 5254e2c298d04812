// A newcomer sets up an appliance that knows nothing yet: the one-time link, an administrator, the first configuration
// with the mistakes that people make, the restart, and the page that comes back. The test `first_configuration` starts
// this, gives the second address that the office's interface overlaps with, and calls afterwards.
import assert from "node:assert/strict";
import { start } from "./visitor.mjs";

const { SETUP_LINK, SHOTS, OFFICE, CENTRE, OFFICE_ADDRESS, OVERLAPPING, EMPTY, SERVER, PHONE } = process.env;
const NAME = "ann";
const PASSWORD = "a password of the test";
const origin = new URL(SETUP_LINK).origin;
const { newPage, step, refused, complaining, until, heading, notice, go, shoot, end } = await start(origin, SHOTS, () => page);

let page = await newPage({ viewport: { width: 1280, height: 900 } });

const wrong = (label, text) => page.locator(".field.wrong", { hasText: label }).locator(".error", { hasText: text }).waitFor();
const apply = () => page.getByRole("button", { name: "Apply" }).click();
const offices = () => page.getByLabel("Interface to the phones");
const servers = () => page.getByLabel("Interface to the servers");
const officeAddress = () => page.locator("#office_address");
const centralServers = () => page.getByLabel("Central servers");

await step("the link sets an administrator, and the status page leads to the first configuration", async () => {
  await page.goto(SETUP_LINK);
  await shoot("setup-1280");
  await page.getByLabel("Name").fill(NAME);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByLabel("Password again").fill(PASSWORD);
  await page.getByRole("button", { name: "Set and sign in" }).click();
  await heading("Bridge");
  await page.locator("#pill.bad", { hasText: "not configured yet" }).waitFor();
  await shoot("unconfigured-1280");
  await page.getByRole("link", { name: "Make the first configuration" }).click();
  await heading("First configuration");
});

await step("every page can be looked at before there is a configuration", async () => {
  const paths = ["/", "/sessions", "/phones", "/configuration/servers", "/certificates", "/authentication",
    "/configuration/protocols", "/configuration/survival", "/configuration/media", "/configuration/services", "/diagnostics", "/administration", "/configuration/history", "/about"];
  for (const path of paths) {
    const response = await go(path);
    assert.equal(response.status(), 200, path);
  }
});

await refused("what a newcomer does wrong is told at its field, and nothing is written", 422, async () => {
  await go("/configuration/networks");
  await offices().selectOption(OFFICE);
  await servers().selectOption(OFFICE);
  await centralServers().fill(SERVER);
  await apply();
  await wrong("Interface to the servers", "the phones are by this interface already");

  await servers().selectOption(EMPTY);
  await apply();
  await wrong("Interface to the servers", "has no address");

  await servers().selectOption(OVERLAPPING);
  await apply();
  await wrong("Interface to the servers", "overlap (network \"office\")");

  await servers().selectOption(CENTRE);
  await officeAddress().fill("10.61.0.77");
  await apply();
  await wrong("Address there", `10.61.0.77 is not an address of interface ${OFFICE}`);
  assert.equal(await officeAddress().inputValue(), "10.61.0.77", "what was typed stays");

  await officeAddress().fill("10.61.0");
  await apply();
  await wrong("Address there", "invalid IP address");
  await officeAddress().fill(OFFICE_ADDRESS);

  for (const [typed, words] of [
    ["http://sip.example.com", "is not a SIP server"],
    ["10.62.0", "is not a SIP server"],
    ["sip:ann@sip.example.com", "a server has no user part"],
    [`${PHONE}:5060`, "is among the phones"],
    [`${OFFICE_ADDRESS}:8060`, "is this appliance itself"],
  ]) {
    await centralServers().fill(typed);
    await apply();
    await wrong("Central servers", words);
  }
  await shoot("first-configuration-refused-1280");

  // An interface that is gone when the form arrives.
  await centralServers().fill(SERVER);
  await page.evaluate((id) => { document.getElementById(id).options[1].value = "gone0"; }, "office");
  await page.evaluate((id) => { document.getElementById(id).selectedIndex = 1; }, "office");
  await apply();
  await wrong("Interface to the phones", "interface gone0 does not exist; there are");
  await go("/");
  await page.locator("#pill.bad", { hasText: "not configured yet" }).waitFor();
  assert.equal(await page.locator(".notice.waiting").count(), 0, "nothing was written");
});

for (const [width, colorScheme] of [[360, "light"], [360, "dark"], [1920, "light"], [1920, "dark"]]) {
  await step(`the form fits ${width} pixels, ${colorScheme}`, async () => {
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ colorScheme });
    await go("/configuration/networks");
    await heading("First configuration");
    await shoot(`first-configuration-${width}-${colorScheme}`);
    await go("/");
    await shoot(`unconfigured-${width}-${colorScheme}`);
  });
}

for (const [width, height, colorScheme] of [[360, 740, "dark"], [1920, 1080, "light"]]) {
  await step(`the door fits ${width} pixels, ${colorScheme}`, async () => {
    const main = page;
    page = await newPage({ viewport: { width, height }, colorScheme });
    await go("/");
    await heading("Sign in");
    await shoot(`sign-in-${width}-${colorScheme}`);
    await page.context().close();
    page = main;
  });
}

await step("the first configuration is applied, and waits for a restart", async () => {
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
  await go("/configuration/networks");
  await offices().selectOption(OFFICE);
  await officeAddress().fill(OFFICE_ADDRESS);
  await servers().selectOption(CENTRE);
  await centralServers().fill(SERVER);
  await apply();
  await notice("The first configuration is saved");
  await notice("Waiting for a restart");
  await page.locator("#pill.bad", { hasText: "restart" }).waitFor();
  await shoot("waiting-1280");
});

// A browser complains on its console about each request while nobody answers.
await complaining("the restart is done in place, and the page comes back by itself, ready", /ERR_|status of 401/, async () => {
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Restart now" }).click();
  await heading("The appliance restarts");
  await heading("Sign in");
  await page.getByLabel("Name").fill(NAME);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await heading("Bridge");
  await page.locator("#pill.good", { hasText: "Ready" }).waitFor();
  await page.getByRole("rowheader", { name: "office" }).waitFor();
  await page.locator(".tag.good", { hasText: "up" }).waitFor();
  assert.equal(await page.locator(".notice.waiting").count(), 0, "nothing waits any more");
});

console.log("please: call");
await step("the call is seen", async () => {
  await until("a call", () => document.querySelector(".figure").innerText === "1");
});

await refused("a network cannot be moved to where it could not start, and a restart is refused rather than lost", 422, async () => {
  await go("/configuration/networks");
  await page.getByLabel("Interface").first().fill("gone0");
  await page.locator("#networks-form").getByRole("button", { name: "Apply" }).click();
  await wrong("Interface", "interface gone0 does not exist");
});

console.log("please: name an interface that is not there");
await step("a file that asks for what the host does not have is not restarted into", async () => {
  await until("the message", async () => (await (await fetch("/about")).text()).includes("Waiting for a restart"));
  await go("/about");
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Restart now" }).click();
  await notice("Not restarted, since it could not start");
  await notice("interface gone0 does not exist");
  await shoot("not-restarted-1280");
});

await end();
