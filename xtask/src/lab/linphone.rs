//! Linphone as a phone: another real user agent, with another SIP stack (belle-sip) and other media (mediastreamer) than
//! baresip. It is told by its standard input what to do, and plays a tone from a file.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::interrupt;
use super::kamailio::REALM;
use super::netns::Namespace;
use super::network::Lab;
use super::running::Running;
use crate::process;

/// The first of its media ports.
const MEDIA: u16 = 7078;
/// It starts and registers in a second or two; a busy machine takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// A running Linphone that answers every call. Dropping it stops it.
#[derive(Debug)]
pub struct Linphone {
    running: Running,
    input: ChildStdin,
    log: PathBuf,
}

impl Linphone {
    /// Starts it as a user in a host with this address, and returns when it has registered through `proxy` by UDP.
    ///
    /// # Errors
    /// It does not start, or is not registered in time; the message has the end of its log.
    pub fn start(
        lab: &Lab,
        host: &Namespace,
        user: &str,
        address: impl Into<IpAddr>,
        proxy: impl Into<SocketAddr>,
    ) -> Result<Self> {
        let (address, proxy) = (address.into(), proxy.into());
        let dir = lab.dir().join(format!("linphone-{user}"));
        // Where it keeps its database; it makes no directories.
        fs::create_dir_all(dir.join(".local/share/linphone"))?;
        let file = dir.join("linphonerc");
        fs::write(
            &file,
            format!(
                "[sip]\nguess_hostname=0\ncontact=\"{user}\" <sip:{user}@{address}>\ndefault_proxy=0\n\
                 [rtp]\naudio_rtp_port={MEDIA}\n\
                 [auth_info_0]\nusername={user}\npasswd=lab{user}\nrealm={REALM}\n\
                 [proxy_0]\nreg_proxy=<sip:{proxy};transport=udp>\nreg_route=<sip:{proxy};transport=udp>\n\
                 reg_identity=<sip:{user}@{REALM}>\nreg_expires=600\nreg_sendregister=1\npublish=0\n"
            ),
        )?;
        let mut command = host.command("linphonec");
        // It answers calls by itself, says all in its log, and keeps what it keeps beside its configuration.
        let log = dir.join("log");
        command.env("HOME", &dir).arg("-c").arg(&file).args(["-a", "-d", "6", "-l"]).arg(&log);
        let (running, input) = Running::start_told(&mut command, &format!("linphone-{user}"), lab.dir())?;
        let mut phone = Self { running, input, log };
        let tone = dir.join("tone.wav");
        fs::write(&tone, wave())?;
        phone.tell("soundcard use files")?;
        phone.tell(&format!("play {}", tone.display()))?;
        phone.wait_for("LinphoneRegistrationOk").with_context(|| format!("{user} does not register"))?;
        Ok(phone)
    }

    /// Gives it a command: `call sip:...`, `pause`, `resume`, `transfer`, `terminate`.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        let told = writeln!(self.input, "{command}").and_then(|()| self.input.flush());
        told.with_context(|| format!("linphonec takes no `{command}`; {}", self.running.last_words()))
    }

    /// Waits until it has logged something.
    ///
    /// # Errors
    /// It ended, or the time is up; the message has the end of its log.
    pub fn wait_for(&mut self, words: &str) -> Result<()> {
        self.wait_for_times(words, 1)
    }

    /// Waits until it has logged something so many times.
    ///
    /// # Errors
    /// As of [`wait_for`](Self::wait_for).
    pub fn wait_for_times(&mut self, words: &str, times: usize) -> Result<()> {
        let said = || fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned());
        let what = format!("`{words}` in {}", self.log.display());
        let running = &mut self.running;
        let waited = interrupt::wait_until(LIMIT, &what, || {
            if said().is_ok_and(|log| log.matches(words).count() >= times) {
                return Ok(Some(()));
            }
            running.still_runs().map(|()| None)
        });
        waited.with_context(|| process::tail(&said().unwrap_or_default()))
    }
}

/// A minute of a tone of 400 hertz, as a WAVE file of 16 bits at 8000 hertz.
fn wave() -> Vec<u8> {
    const RATE: u32 = 8000;
    const SECONDS: u32 = 60;
    const PERIOD: u32 = RATE / 400;
    let bytes = RATE * SECONDS * 2;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    // PCM, one channel.
    file.extend([1, 0, 1, 0]);
    for number in [RATE, RATE * 2] {
        file.extend(number.to_le_bytes());
    }
    // Bytes of a frame, bits of a sample.
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    for sample in 0..RATE * SECONDS {
        let loud: i16 = if sample % PERIOD < PERIOD / 2 { 8000 } else { -8000 };
        file.extend(loud.to_le_bytes());
    }
    file
}

impl Drop for Linphone {
    fn drop(&mut self) {
        // It unregisters then; whether it does is nobody's matter here.
        let _ = self.tell("quit");
    }
}
