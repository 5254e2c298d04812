//! TLS on both ports, TLS toward servers with certificates on both sides, and digest authentication.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use md5::{Digest as _, Md5};
use xtask::lab::network::SERVER;
use xtask::process;

use super::{FIRST, Files, RELAY, SECOND, curl};

const USER: &str = "branch-12";
const PASSWORD: &str = "swordfish";

#[test]
fn each_port_understands_tls_and_plain_http() -> Result<()> {
    let files = Files::start("", "")?;
    let _nginx = files.nginx(FIRST, "")?;
    files.put("pc.office.example.i3sipcfg", b"soft")?;
    for base in [RELAY, "https://10.61.0.1:8088", "http://10.61.0.1:8089", "https://10.61.0.1:8089"] {
        let (office, dir) = (&files.lab.office, files.lab.dir());
        // The certificate that the appliance made for its address in the office.
        let own = dir.join("state/tls/own.pem").display().to_string();
        let got = curl(office, dir, base, &["--cacert", &own], "/pc.office.example.i3sipcfg")?;
        assert_eq!((got.status, &got.body[..]), (200, &b"soft"[..]), "{base}");
    }
    Ok(())
}

fn openssl(dir: &Path, arguments: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(arguments.split(' '));
    process::output(&mut command).map(drop)
}

/// An authority, and certificates by it for the server and for the appliance.
fn certificates(dir: &Path) -> Result<()> {
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {curve} -keyout ca.key -out ca.pem -subj /CN=Lab -days 2"))?;
    fs::write(dir.join("server.ext"), format!("subjectAltName=IP:{SERVER}\nextendedKeyUsage=serverAuth\n"))?;
    fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n")?;
    for name in ["server", "client"] {
        openssl(dir, &format!("req {curve} -keyout {name}.key -out {name}.csr -subj /CN={name}"))?;
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile {name}.ext -out {name}.pem -days 2"
            ),
        )?;
    }
    Ok(())
}

#[test]
fn servers_are_verified_and_the_appliance_shows_its_certificate() -> Result<()> {
    let url = [format!("https://{FIRST}")];
    for is_trusted in [true, false] {
        let mut place = None;
        let authorities = |dir: &Path| {
            if is_trusted {
                format!("[tls]\nauthorities = \"{}/ca.pem\"\n", dir.display())
            } else {
                String::new()
            }
        };
        let files = Files::start_to(&url, "", |lab| {
            let dir = lab.dir().to_owned();
            certificates(&dir)?;
            let keys = format!(
                "{}[provisioning]\nclient_certificate = \"{dir}/client.pem\"\nclient_private_key = \"{dir}/client.key\"\n",
                authorities(&dir),
                dir = dir.display()
            );
            place = Some(dir);
            Ok(keys)
        })?;
        let dir = place.unwrap_or_default();
        let shown = dir.display();
        let keys = format!(
            "ssl_certificate {shown}/server.pem; ssl_certificate_key {shown}/server.key; \
             ssl_client_certificate {shown}/ca.pem; ssl_verify_client on;"
        );
        let _nginx = files.nginx(FIRST, &keys)?;
        files.put("a.cfg", b"by TLS")?;
        let got = files.get("/a.cfg")?;
        if is_trusted {
            assert_eq!((got.status, &got.body[..]), (200, &b"by TLS"[..]));
        } else {
            assert_eq!(got.status, 502);
            xtask::lab::interrupt::wait_until(crate::site::LIMIT, "the certificate to be noted", || {
                let met = files.appliance.ask(&files.lab, &["certificates"])?;
                Ok(met.to_string().contains(&SERVER.to_string()).then_some(()))
            })?;
        }
    }
    Ok(())
}

fn hash(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server of one file that wants to know who asks (RFC 7616): it gives a nonce, checks the response by a formula of
/// its own, and takes every count of a nonce once. Each request's outcome is noted.
struct Guarded {
    heard: Mutex<Vec<String>>,
}

impl Guarded {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        let mut used: Vec<String> = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut words = line.split_whitespace();
            let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (mut authorization, mut length) = (String::new(), 0);
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let Some((name, value)) = header.trim().split_once(": ") else { break };
                match name.to_ascii_lowercase().as_str() {
                    "authorization" => authorization = value.to_owned(),
                    "content-length" => length = value.parse().unwrap_or(0),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let fields: HashMap<&str, &str> = authorization
                .trim_start_matches("Digest ")
                .split(", ")
                .filter_map(|field| field.split_once('='))
                .map(|(name, value)| (name, value.trim_matches('"')))
                .collect();
            let field = |name: &str| fields.get(name).copied().unwrap_or_default();
            let secret = hash(&format!("{USER}:files:{PASSWORD}"));
            let expected = hash(&format!(
                "{secret}:n1:{}:{}:auth:{}",
                field("nc"),
                field("cnonce"),
                hash(&format!("{method}:{uri}"))
            ));
            let is_right = field("response") == expected && field("uri") == uri && field("username") == USER;
            let is_new = !used.contains(&field("nc").to_owned());
            let verdict = match (authorization.is_empty(), is_right && is_new) {
                (true, _) => "asked",
                (false, true) => "right",
                (false, false) => "wrong",
            };
            used.push(field("nc").to_owned());
            if let Ok(mut heard) = self.heard.lock() {
                heard.push(format!("{method} {verdict} {}", String::from_utf8_lossy(&body)));
            }
            let answer = if verdict == "right" {
                "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret".to_owned()
            } else {
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"files\", nonce=\"n1\", qop=\"auth\", \
                 algorithm=MD5\r\nContent-Length: 0\r\n\r\n"
                    .to_owned()
            };
            writer.write_all(answer.as_bytes())?;
        }
    }
}

#[test]
fn a_servers_challenge_is_answered_once_and_then_beforehand() -> Result<()> {
    for (password, expected) in [
        (PASSWORD, &["GET asked ", "GET right ", "GET right ", "PUT right log"] as &[&str]),
        (
            "wrong",
            &["GET asked ", "GET wrong ", "GET wrong ", "GET wrong ", "PUT wrong log", "PUT wrong log"],
        ),
    ] {
        let files = Files::start_to(&[format!("http://{SECOND}")], "", |lab| {
            let file = lab.dir().join("password");
            fs::write(&file, format!("{password}\n"))?;
            Ok(format!("[provisioning]\nuser = \"{USER}\"\npassword_file = \"{}\"\n", file.display()))
        })?;
        let guarded = Arc::new(Guarded { heard: Mutex::default() });
        let server = Arc::clone(&guarded);
        let listener = files.lab.centre.enter(|| TcpListener::bind(SECOND))??;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.serve(stream));
            }
        });
        let status = if password == PASSWORD { 200 } else { 401 };
        for target in ["/a.cfg", "/b.cfg?x=1"] {
            let got = files.get(target)?;
            assert_eq!(got.status, status, "{target}: {}", got.head);
            assert_eq!(got.body == b"secret", status == 200);
        }
        let sent = files.lab.dir().join("log");
        fs::write(&sent, "log")?;
        let put = files.curl(&["-T", &sent.display().to_string()], "/x.log")?;
        assert_eq!(put.status, status);
        let heard = guarded.heard.lock().map(|heard| heard.clone()).unwrap_or_default();
        assert_eq!(heard, expected, "password {password}");
    }
    Ok(())
}
