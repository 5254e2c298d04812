//! Lines on the terminal: what is done now, how it ended, how long it took.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was done.
    Done,
    /// Nothing was to be done.
    Skipped,
    /// It failed; the error is printed by the caller.
    Failed,
}

impl Outcome {
    fn mark(self) -> char {
        match self {
            Self::Done => '✓',
            Self::Skipped => '·',
            Self::Failed => '✗',
        }
    }
}

/// A step in progress. Ending it prints one line with its mark, its detail and the time taken.
#[derive(Debug)]
pub struct Step {
    title: String,
    started: Instant,
    last_note: Instant,
}

/// A status line is overwritten on a terminal; in a log file one line is written this often at most.
const NOTE_EVERY_IN_A_LOG: Duration = Duration::from_secs(10);
/// And this often on a terminal.
const NOTE_EVERY_ON_A_TERMINAL: Duration = Duration::from_millis(200);
/// Longest status text on a terminal, so that one line stays one line.
const NOTE_WIDTH: usize = 76;

impl Step {
    /// Begins a step. Nothing is printed until it takes a while or ends.
    #[must_use]
    pub fn begin(title: impl Into<String>) -> Self {
        let now = Instant::now();
        Self { title: title.into(), started: now, last_note: now }
    }

    /// Says at once that the step is going on, with what it does.
    pub fn announce(&self, what: &str) {
        println!("  … {}: {what}", self.title);
    }

    /// Says how far a long step is. Called as often as there is something new: it limits itself.
    pub fn note(&mut self, status: &str) {
        let on_terminal = std::io::stdout().is_terminal();
        let every = if on_terminal { NOTE_EVERY_ON_A_TERMINAL } else { NOTE_EVERY_IN_A_LOG };
        if self.last_note.elapsed() < every {
            return;
        }
        self.last_note = Instant::now();
        let line = format!("    {} {:>4.0} s  {status}", self.title, self.started.elapsed().as_secs_f64());
        if on_terminal {
            let short: String = line.chars().take(NOTE_WIDTH).collect();
            print!("\r\x1b[2K{short}");
            // A terminal that is gone is no reason to stop.
            let _ = std::io::stdout().flush();
        } else {
            println!("{line}");
        }
    }

    /// Ends the step and prints its line.
    pub fn end(self, outcome: Outcome, detail: &str) {
        let clear = if std::io::stdout().is_terminal() { "\r\x1b[2K" } else { "" };
        let seconds = self.started.elapsed().as_secs_f64();
        println!("{clear}  {} {:<22} {detail} ({seconds:.1} s)", outcome.mark(), self.title);
    }

    /// Time since the step began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Prints a heading.
pub fn heading(text: &str) {
    println!("{text}");
}

/// Prints an indented line.
pub fn line(text: &str) {
    println!("    {text}");
}
