//! How far a bench is, and how long it will take.

use std::time::Instant;

use xtask::ui::{Outcome, Step};

/// Steps of a known number.
pub(crate) struct Progress {
    step: Option<Step>,
    started: Instant,
    done: usize,
    all: usize,
}

impl Progress {
    /// Begins.
    #[must_use]
    pub(crate) fn begin(title: &str, all: usize) -> Self {
        let step = Step::begin(title);
        step.announce(&format!("{all} runs"));
        Self { step: Some(step), started: Instant::now(), done: 0, all }
    }

    /// Says what is under way.
    pub(crate) fn says(&mut self, what: &str) {
        let left = match self.done {
            0 => String::from("?"),
            done => {
                let each = self.started.elapsed().as_secs_f64() / done as f64;
                format!("{:.0}", each * self.all.saturating_sub(done) as f64)
            }
        };
        let (done, all) = (self.done, self.all);
        if let Some(step) = &mut self.step {
            step.note(&format!("run {done} of {all}, about {left} s left; {what}"));
        }
    }

    /// One more is done.
    pub(crate) fn step(&mut self, what: &str) {
        self.done += 1;
        self.says(what);
    }

    /// Ends.
    pub(crate) fn end(mut self) {
        if let Some(step) = self.step.take() {
            step.end(Outcome::Done, &format!("{} runs", self.done));
        }
    }
}
