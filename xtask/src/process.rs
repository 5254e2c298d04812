//! Commands with their output, a time limit, and progress while they run.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::ui::Step;

/// How many lines of a failed command's output an error shows.
const TAIL_LINES: usize = 15;
/// How often a waiting loop looks again.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Finds a program on the path, and in the directories where Debian keeps administrators' programs.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].into_iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Runs a command to its end and returns what it wrote to standard output.
///
/// # Errors
/// The command cannot be started or exits with an error; the message has the command and what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`: is it installed?"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("`{shown}` failed ({}):\n{}", output.status, tail(&String::from_utf8_lossy(&said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end within a time limit; the command is stopped when it takes longer.
///
/// # Errors
/// As [`output`], and when the time is up.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<String> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`: is it installed?"))?;
    let stdout = read_in_background(child.stdout.take());
    let stderr = read_in_background(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("`{shown}` did not end within {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    };
    let said = stdout.recv().unwrap_or_default();
    if !status.success() {
        bail!("`{shown}` failed ({status}):\n{}", tail(&(said + &stderr.recv().unwrap_or_default())));
    }
    Ok(said)
}

fn read_in_background(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // Half a message is better than none: what was read is what is sent.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Runs a long command, its output into a log file, and shows through `step` how far it is.
///
/// `status` turns a line of output into the text to show; the last one stays until there is another.
///
/// # Errors
/// The command cannot be started or exits with an error; the message has the end of its output.
pub fn with_progress(
    command: &mut Command,
    log: &Path,
    step: &mut Step,
    mut status: impl FnMut(&str) -> Option<String>,
) -> Result<()> {
    let shown = show(command);
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start `{shown}`: is it installed?"))?;
    let mut reader = BufReader::new(File::open(log)?);
    let mut latest = String::from("running");
    let mut line = String::new();
    let status: ExitStatus = loop {
        let ended = child.try_wait()?;
        while reader.read_line(&mut line).unwrap_or(0) > 0 {
            if let Some(text) = status(line.trim_end()) {
                latest = text;
            }
            line.clear();
        }
        step.note(&latest);
        if let Some(status) = ended {
            break status;
        }
        thread::sleep(Duration::from_millis(200));
    };
    if !status.success() {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        bail!("`{shown}` failed ({status}); its whole output is in {}:\n{}", log.display(), tail(&said));
    }
    Ok(())
}

/// The command as a person would type it.
#[must_use]
pub fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// The last lines of an output.
#[must_use]
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_is_stopped_and_named() {
        let started = Instant::now();
        let error = output_within(Command::new("sleep").arg("30"), Duration::from_millis(100)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(error.to_string().contains("`sleep 30` did not end"), "{error}");
    }

    #[test]
    fn a_failed_command_is_reported_with_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut Command::new("branchline-no-such-program")).unwrap_err();
        assert!(error.to_string().contains("branchline-no-such-program"), "{error}");
    }
}
