//! baresip as a phone: a real user agent without a head, which plays a tone, and is told by its control port
//! what to do.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::kamailio::REALM;
use super::netns::Namespace;
use super::network::{Lab, phone};
use super::running::Running;

/// Where Debian keeps its modules.
const MODULES: &str = "/usr/lib/baresip/modules";
/// Where it takes commands.
const CONTROL: u16 = 4444;
/// It loads its modules and registers in well under a second; a busy machine takes longer.
const LIMIT: Duration = Duration::from_secs(20);

/// What a phone is.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its user.
    pub user: String,
    /// The hosts of its addresses-of-record: it registers each at the same time.
    pub domains: Vec<String>,
    /// Its address; SIP is at port 5060.
    pub address: IpAddr,
    /// Its media ports.
    pub ports: std::ops::RangeInclusive<u16>,
    /// Frequency of the tone that it plays, in hertz.
    pub tone: u16,
    /// By what it speaks to its proxy: `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// With `tls`: the certificates that it believes, PEM.
    pub authorities: Option<PathBuf>,
    /// Its password; `lab` and the user's name is what the server has.
    pub password: String,
    /// For how many seconds it registers.
    pub expires: u32,
    /// The interface whose address it announces; none on a host that has only one.
    pub interface: Option<String>,
    /// How it protects its media: baresip's `mediaenc`, as `srtp` (if the other party can) or `srtp-mand`.
    pub encryption: Option<&'static str>,
    /// How its media gets through address translators: baresip's `medianat`, as `ice`.
    pub nat: Option<&'static str>,
}

impl Account {
    /// The office's phone of that number: users 1001, 1002, ... with the password that the server has, by UDP.
    #[must_use]
    pub fn of(index: u8) -> Self {
        /// Media ports of one phone.
        const PORTS: u16 = 100;
        let first = 20_000 + PORTS * u16::from(index);
        let user = (1001 + u16::from(index)).to_string();
        Self {
            domains: vec![REALM.to_owned()],
            address: phone(index).into(),
            ports: first..=first + PORTS - 1,
            tone: 400 + 100 * u16::from(index),
            transport: "udp",
            password: format!("lab{user}"),
            authorities: None,
            expires: 600,
            interface: None,
            encryption: None,
            nat: None,
            user,
        }
    }
}

/// A running baresip that answers every call. Dropping it stops it.
#[derive(Debug)]
pub struct Baresip {
    running: Running,
    address: IpAddr,
}

impl Baresip {
    /// Starts it in a host of the office, and returns when it has registered through `proxy`.
    ///
    /// # Errors
    /// It does not start, or is not registered in time; the message has the end of its log.
    pub fn start(
        lab: &Lab,
        host: &Namespace,
        account: &Account,
        proxy: impl Into<SocketAddr>,
    ) -> Result<Self> {
        let proxy = proxy.into();
        let Account {
            user,
            domains,
            address,
            ports,
            tone,
            transport,
            authorities,
            password,
            expires,
            interface,
            encryption,
            nat,
        } = account;
        let interface = interface.as_ref().map_or_else(String::new, |name| format!("net_interface {name}\n"));
        let trust = authorities.as_ref().map_or_else(String::new, |file| {
            format!("sip_cafile {}\nsip_verify_server yes\n", file.display())
        });
        let encryption = encryption.map_or_else(String::new, |how| format!(";mediaenc={how}"));
        let nat = nat.map_or_else(String::new, |how| format!(";medianat={how}"));
        let dir = lab.dir().join(format!("baresip-{user}"));
        fs::create_dir_all(&dir)?;
        let config = format!(
            "poll_method epoll\nsip_listen {}\ncall_local_timeout 120\ncall_max_calls 4\n\
             audio_source ausine,{tone}\naudio_player aubridge,nobody\naudio_alert aubridge,nobody\n\
             ausrc_channels 2\nauplay_channels 1\nausrc_srate 48000\n\
             {trust}{interface}rtp_tos 0\nrtp_ports {}-{}\nrtcp_mux no\nrtp_stats yes\n\
             module_path {MODULES}\n\
             module g711.so\nmodule srtp.so\nmodule ice.so\nmodule ausine.so\nmodule aubridge.so\nmodule_tmp uuid.so\nmodule_tmp account.so\n\
             module_app menu.so\nmodule_app ctrl_tcp.so\nctrl_tcp_listen {}\n",
            SocketAddr::new(*address, 5060),
            ports.start(),
            ports.end(),
            SocketAddr::new(*address, CONTROL),
        );
        fs::write(dir.join("config"), config)?;
        let account = |domain: &String| {
            format!(
                "<sip:{user}@{domain};transport={transport}>;auth_user={user};auth_pass={password};\
                 outbound=\"sip:{proxy};transport={transport}\";regint={expires};answermode=auto;audio_codecs=pcmu/8000/1{encryption}{nat}\n"
            )
        };
        fs::write(dir.join("accounts"), domains.iter().map(account).collect::<String>())?;
        fs::write(dir.join("contacts"), "")?;
        let mut command = host.command("baresip");
        command.arg(if address.is_ipv6() { "-6" } else { "-4" }).arg("-f").arg(&dir);
        let mut running = Running::start(&mut command, &format!("baresip-{user}"), lab.dir())?;
        running.wait_for("200 OK", LIMIT).with_context(|| format!("{user} does not register"))?;
        Ok(Self { running, address: *address })
    }

    /// Has it call a user.
    ///
    /// # Errors
    /// It does not take the command.
    pub fn call(&self, host: &Namespace, user: &str) -> Result<()> {
        self.tell(host, "dial", &format!("sip:{user}@{REALM}"))
    }

    /// Has it transfer the other party of its call to a user, by REFER.
    ///
    /// # Errors
    /// It does not take the command.
    pub fn transfer(&self, host: &Namespace, user: &str) -> Result<()> {
        self.tell(host, "transfer", &format!("sip:{user}@{REALM}"))
    }

    /// Has it hang up.
    ///
    /// # Errors
    /// It does not take the command.
    pub fn hang_up(&self, host: &Namespace) -> Result<()> {
        self.tell(host, "hangup", "")
    }

    /// Waits until it has said something.
    ///
    /// # Errors
    /// It ended, or the time is up.
    pub fn wait_for(&mut self, words: &str) -> Result<()> {
        self.running.wait_for(words, LIMIT).with_context(|| self.running.last_words())
    }

    /// The file with what it says.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.running.log()
    }

    /// Sends a command as a netstring with JSON in it (baresip's module `ctrl_tcp`).
    fn tell(&self, host: &Namespace, command: &str, parameters: &str) -> Result<()> {
        let text = serde_json::json!({ "command": command, "params": parameters }).to_string();
        let netstring = format!("{}:{text},", text.len());
        let address = SocketAddr::from((self.address, CONTROL));
        let sent = host.enter(move || -> std::io::Result<()> {
            let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
            stream.write_all(netstring.as_bytes())?;
            // It answers, and reads no more once the connection is gone.
            stream.set_read_timeout(Some(LIMIT))?;
            std::io::Read::read(&mut stream, &mut [0; 1024]).map(drop)
        })?;
        sent.with_context(|| format!("baresip at {address} does not take `{command}`"))
    }
}
