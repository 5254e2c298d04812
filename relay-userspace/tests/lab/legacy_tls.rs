//! TLS as OpenSSL's own client speaks it: as an old phone does, with the certificate checked against the authority that
//! was given out; and as a new one while the appliance's certificate is replaced under it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context as _, Result, ensure};
use branchline::control::StatusView;
use branchline::tls::Identity;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Lab, Namespace, Routes, interrupt};

use crate::site::{LIMIT, ask, settings, turn};

const LEGACY: u16 = 8062;
const TLS: u16 = APPLIANCE_SIP + 1;

/// A client that is connected, or has failed.
struct Client {
    child: Child,
    said: mpsc::Receiver<String>,
    heard: String,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    fn start(host: &Namespace, port: u16, arguments: &[&str]) -> Result<Self> {
        let mut command: Command = host.command("openssl");
        let place = format!("{APPLIANCE_OFFICE}:{port}");
        command
            .args(["s_client", "-connect", &place, "-verify_return_error", "-brief", "-ign_eof"])
            .args(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start openssl")?;
        let (tell, said) = mpsc::channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().context("no output")?),
            Box::new(child.stderr.take().context("no output")?),
        ];
        for mut output in outputs {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = output.read(&mut buffer) {
                    let _ = tell.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
                }
            });
        }
        Ok(Self { child, said, heard: String::new() })
    }

    fn say(&mut self, text: &str) -> Result<()> {
        self.child.stdin.as_mut().context("no input")?.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Waits until it has printed one of the words; returns all that it has printed.
    fn until(&mut self, words: &[&str]) -> Result<&str> {
        while !words.iter().any(|word| self.heard.contains(word)) {
            match self.said.recv_timeout(LIMIT) {
                Ok(more) => self.heard.push_str(&more),
                Err(error) => anyhow::bail!("{words:?}: {error}: {}", self.heard),
            }
        }
        Ok(&self.heard)
    }
}

fn register(user: &str) -> String {
    let own = SocketAddrV4::new(phone(0), 5061);
    format!(
        "REGISTER sip:lab.example SIP/2.0\r\nVia: SIP/2.0/TLS {own};branch=z9hG4bKold\r\nMax-Forwards: 70\r\n\
         From: <sip:{user}@lab.example>;tag=old\r\nTo: <sip:{user}@lab.example>\r\nCall-ID: old\r\n\
         CSeq: 1 REGISTER\r\nContact: <sip:{user}@{own};transport=tls>\r\nExpires: 600\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

#[test]
fn an_old_phone_registers_by_tls_1_0_with_rsa_key_exchange_on_its_own_port_alone() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let settings = Settings { office: format!("sip_legacy_tls_port = {LEGACY}\n"), ..settings() };
    let appliance = Appliance::start_with(&lab, &settings)?;
    appliance.tell(&lab, &["entries", "set", "1001"], "lab1001\n")?;
    assert!(appliance.said().contains("LEGACY TLS is open for old phones"), "{}", appliance.said());
    let shown = appliance.show(&lab, &["status"])?;
    assert!(shown.contains("LEGACY TLS     network \"office\" takes TLS 1.0 to 1.2"), "{shown}");

    // What phones are given to trust.
    let authority = lab.dir().join("authority.pem");
    fs::write(&authority, appliance.show(&lab, &["certificates", "authority"])?)?;
    let authority = authority.display().to_string();
    let old = ["-tls1", "-cipher", "AES128-SHA@SECLEVEL=0", "-CAfile", &authority];
    let mut phone = Client::start(&lab.office, LEGACY, &old)?;
    let met = phone.until(&["Verification", "error"])?;
    ensure!(met.contains("Protocol version: TLSv1\n") && met.contains("Ciphersuite: AES128-SHA\n"), "{met}");
    ensure!(met.contains("Verification: OK"), "{met}");
    phone.say(&register("1001"))?;
    let answer = phone.until(&["Content-Length: 0"])?;
    ensure!(answer.contains("SIP/2.0 200 OK\r\n"), "{answer}");
    assert_eq!(ask::<StatusView>(&appliance, &lab, "status")?.registrations, 1);
    let labels = [("network", "office"), ("transport", "legacy-tls")];
    assert_eq!(appliance.metrics(&lab)?.sum("branchline_sip_connections", &labels) as u32, 1);

    // The other port is not for it; that one is for the others.
    let mut refused = Client::start(&lab.office, TLS, &old)?;
    let why = refused.until(&["alert", "errno", "error"])?;
    ensure!(!why.contains("CONNECTION ESTABLISHED"), "{why}");
    let mut phone = Client::start(&lab.office, TLS, &["-tls1_3", "-CAfile", &authority])?;
    let met = phone.until(&["Verification", "error"])?;
    ensure!(met.contains("TLSv1.3") && met.contains("Verification: OK"), "{met}");
    Ok(())
}

/// Copies a certificate with its key to where the configuration has them.
fn put(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from.join("tls/own.key"), to.join("shown.key"))?;
    fs::copy(from.join("tls/own.pem"), to.join("shown.pem"))?;
    Ok(())
}

#[test]
fn a_replaced_certificate_is_shown_without_a_restart_and_phones_have_to_show_theirs() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let make = |name: &str| -> Result<PathBuf> {
        let (dir, name) = (lab.dir().join(name), format!("{name}.lab.example"));
        Identity::open(&dir, None, None, &[name], &[APPLIANCE_OFFICE.into()])?;
        Ok(dir)
    };
    let (first, second, third) = (make("first")?, make("second")?, make("third")?);
    make("handset")?;
    put(&first, lab.dir())?;
    let at = |name: &str| lab.dir().join(name).display().to_string();
    let settings = Settings {
        tables: format!(
            "[tls]\ncertificate = {:?}\nprivate_key = {:?}\nauthorities = {:?}\nclient_certificates = \"require\"\n",
            at("shown.pem"),
            at("shown.key"),
            at("handset/tls/authority.pem")
        ),
        office: format!("sip_legacy_tls_port = {LEGACY}\n"),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    let (certificate, key) = (at("handset/tls/own.pem"), at("handset/tls/own.key"));
    let shows = |name: &str, port: u16, more: &[&str]| -> Result<bool> {
        let authority = at(&format!("{name}/tls/authority.pem"));
        let own = ["-cert", &certificate, "-key", &key, "-CAfile", &authority];
        let mut client = Client::start(&lab.office, port, &[&own[..], more].concat())?;
        Ok(client.until(&["Verification", "error", "errno"])?.contains("Verification: OK"))
    };
    let old = ["-tls1", "-cipher", "AES128-SHA@SECLEVEL=0"];
    assert!(shows("first", TLS, &[])? && shows("first", LEGACY, &old)?);

    // Without one of its own a phone gets nowhere, by either port.
    for (port, more) in [(TLS, &["-tls1_2"][..]), (LEGACY, &old)] {
        let authority = at("first/tls/authority.pem");
        let mut bare = Client::start(&lab.office, port, &[&["-CAfile", &authority][..], more].concat())?;
        let why = bare.until(&["alert", "errno"])?;
        ensure!(!why.contains("CONNECTION ESTABLISHED"), "{why}");
    }

    // The file changes.
    put(&second, lab.dir())?;
    interrupt::wait_until(LIMIT, "the second certificate", || Ok(shows("second", TLS, &[])?.then_some(())))?;
    assert!(shows("second", LEGACY, &old)?);
    // A signal does it at once.
    put(&third, lab.dir())?;
    appliance.signal(libc::SIGHUP);
    interrupt::wait_until(LIMIT, "the third certificate", || Ok(shows("third", TLS, &[])?.then_some(())))?;
    let said = appliance.said();
    assert_eq!(said.matches("another certificate is shown from now on").count(), 2, "{said}");
    // Half of a change is none.
    fs::copy(first.join("tls/own.pem"), lab.dir().join("shown.pem"))?;
    interrupt::wait_until(LIMIT, "the complaint", || {
        Ok(appliance.said().contains("it is not the private key of the certificate in").then_some(()))
    })?;
    assert!(shows("third", TLS, &[])?);
    Ok(())
}
