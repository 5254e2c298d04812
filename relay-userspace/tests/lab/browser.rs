//! A browser in a namespace, driven by one of the scripts in `tests/browser`.
//!
//! A script prints "please: ..." when it needs something of the test, "passed: ..." for each step, and "all passed".

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::lab::Namespace;
use xtask::process;
use xtask::workspace;

/// Ends the browser with its driver, also when the test fails.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the pictures are left.
pub(crate) fn pictures() -> PathBuf {
    workspace::target_dir().join("browser/pictures")
}

/// The one-time link by the appliance's address in the office, if the text has one.
pub(crate) fn setup_link(text: &str) -> Option<&str> {
    let mut words = text.split(|letter: char| letter.is_whitespace() || letter == '"');
    words.find(|word| word.starts_with("https://10.61.0.1:8443/setup?token="))
}

/// Runs a script to its end. `please` does what the script asks for.
pub(crate) fn visit(
    from: &Namespace,
    script: &str,
    environment: &[(&str, &str)],
    mut please: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let (Some(node), Some(chromium)) = (process::find("node"), process::find("chromium")) else {
        bail!("node or chromium is missing: cargo xtask setup --for test");
    };
    let mut command = from.command(&node);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(script))
        .env("BROWSER_MODULES", workspace::target_dir().join("browser"))
        .env("BROWSER_PROGRAM", &chromium)
        .env("SHOTS", pictures())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut driver = Driver(command.spawn().context("cannot start node")?);
    let mut stderr = driver.0.stderr.take().context("no output")?;
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let mut last = String::new();
    for line in BufReader::new(driver.0.stdout.take().context("no output")?).lines() {
        let line = line?;
        println!("{line}");
        match line.strip_prefix("please: ") {
            Some(wish) => please(wish)?,
            None => last = line,
        }
    }
    let status = driver.0.wait()?;
    let errors = errors.join().unwrap_or_default();
    ensure!(status.success() && last == "all passed", "{script}, after \"{last}\": {errors}");
    Ok(())
}
