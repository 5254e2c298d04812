//! What else has the machine's cores: other processes of it, and the hypervisor. The load average would count the build that
//! went before a bench, and nothing of a hypervisor.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// A machine that does nothing else has less than this part of one core for others.
const QUIET: f64 = 0.1;

/// What of the cores others had, for a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OtherWork {
    looked: Duration,
    /// All cores' time that others of this machine had, the kernel with them.
    here: Duration,
    /// All cores' time that the hypervisor gave to somebody else.
    stolen: Duration,
}

impl OtherWork {
    /// Looks at what others have while something is done.
    ///
    /// # Errors
    /// That fails, or the system does not say.
    pub(crate) fn beside<T>(what: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let (started, before, own_before) = (Instant::now(), Cores::read()?, own()?);
        let done = what()?;
        let (after, own_after) = (Cores::read()?, own()?);
        Ok((done, Self::between(started.elapsed(), &before, &after, own_after.saturating_sub(own_before))))
    }

    fn between(looked: Duration, before: &Cores, after: &Cores, own: Duration) -> Self {
        Self {
            looked,
            here: after.busy.saturating_sub(before.busy).saturating_sub(own),
            stolen: after.stolen.saturating_sub(before.stolen),
        }
    }

    /// What is told to a reader if it is too much to believe every figure.
    pub(crate) fn warning(&self) -> Option<String> {
        let (here, stolen) = (self.part(self.here), self.part(self.stolen));
        (here + stolen > QUIET).then(|| {
            format!(
                "**The machine had other work to do** ({here:.2} of a core for others and {stolen:.2} taken by the hypervisor when \
                 this began): the highest rates held, delays and all that a moment's pause spoils are its, not the contenders'. \
                 Ratios at saturation are what is left."
            )
        })
    }

    /// As a part of one core.
    fn part(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.looked.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl fmt::Display for OtherWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looked = self.looked.as_secs_f64();
        let (here, stolen) = (self.part(self.here), self.part(self.stolen));
        write!(f, "in {looked:.1} s {here:.2} of a core, and {stolen:.2} taken by the hypervisor")
    }
}

/// What the hypervisor takes while everything is measured: a pause loses what a queue does not hold, whoever forwards.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    before: Cores,
}

impl Watch {
    /// # Errors
    /// The system does not say.
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self { began: Instant::now(), before: Cores::read()? })
    }

    /// Part of one core that the hypervisor took since it began.
    ///
    /// # Errors
    /// The system does not say.
    pub(crate) fn stolen(&self) -> Result<f64> {
        let took = self.began.elapsed();
        let work = OtherWork::between(took, &self.before, &Cores::read()?, Duration::ZERO);
        Ok(work.part(work.stolen))
    }
}

/// Times of all cores since the machine began.
#[derive(Debug, PartialEq, Eq)]
struct Cores {
    busy: Duration,
    stolen: Duration,
}

impl Cores {
    fn read() -> Result<Self> {
        // SAFETY: no memory is handed over.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let ticks = u32::try_from(ticks).ok().filter(|it| *it > 0).context("the system has no clock tick")?;
        Self::parse(&fs::read_to_string("/proc/stat")?, ticks)
    }

    /// From `/proc/stat`, see proc(5): the first line has what all cores were busy with, in ticks of so many a second.
    fn parse(stat: &str, ticks: u32) -> Result<Self> {
        let line = stat.lines().next().unwrap_or_default();
        let mut words = line.split_whitespace();
        ensure!(words.next() == Some("cpu"), "/proc/stat begins with {line:?}");
        let times: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().context(line.to_owned())?;
        let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen, ..] = times[..] else {
            anyhow::bail!("/proc/stat begins with {line:?}");
        };
        let time = |count: u64| Duration::from_secs(count) / ticks;
        Ok(Self { busy: time(user + nice + system + interrupts + soft_interrupts), stolen: time(stolen) })
    }
}

/// What this process had of all cores.
fn own() -> Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is valid for writing.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    ensure!(result == 0, "cannot tell this process's time: {}", std::io::Error::last_os_error());
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_cores_are_not_busy() {
        let stat = "cpu  100 20 30 5000 7000 4 6 50 8 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let cores = Cores::parse(stat, 100).unwrap();
        assert_eq!(cores, Cores { busy: Duration::from_millis(1600), stolen: Duration::from_millis(500) });
        assert!(Cores::parse("cpu0 1 2 3\n", 100).is_err());
        assert!(Cores::parse("cpu 1 2 3\n", 100).is_err());
    }

    #[test]
    fn others_are_told_of_from_a_tenth_of_a_core() {
        let others = |here, stolen| OtherWork {
            looked: Duration::from_secs(4),
            here: Duration::from_millis(here),
            stolen: Duration::from_millis(stolen),
        };
        assert_eq!(others(390, 0).warning(), None);
        let said = others(200, 220).warning().unwrap();
        assert!(said.contains("0.05 of a core for others and 0.06 taken by the hypervisor"), "{said}");
        assert_eq!(others(200, 220).to_string(), "in 4.0 s 0.05 of a core, and 0.06 taken by the hypervisor");
    }

    #[test]
    fn own_work_is_not_others() {
        let cores =
            |busy, stolen| Cores { busy: Duration::from_millis(busy), stolen: Duration::from_millis(stolen) };
        let between = |own| {
            let own = Duration::from_millis(own);
            OtherWork::between(Duration::from_secs(4), &cores(1000, 10), &cores(5000, 30), own)
        };
        assert_eq!(between(3500).to_string(), "in 4.0 s 0.12 of a core, and 0.01 taken by the hypervisor");
        // Cores' times are counted in ticks, this process's are not.
        assert_eq!(between(4020).to_string(), "in 4.0 s 0.00 of a core, and 0.01 taken by the hypervisor");
    }
}
