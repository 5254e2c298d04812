//! The second port, which serves the REST interface alone: opened while calls could be made, asked by curl with tokens.

use std::fs;
use std::net::TcpListener;

use anyhow::{Context as _, Result};
use branchline::admin::access::Secret;
use branchline::store::{Scope, Store};
use serde_json::{Value, json};
use xtask::lab::network::APPLIANCE_OFFICE;
use xtask::lab::{Namespace, interrupt};

use crate::provisioning::{Got, curl};
use crate::site::{LIMIT, Site, settings};

/// The reference products' port.
const PORT: u16 = 343;
/// Wrong tokens from one address before it has to wait.
const FREE: usize = 5;

/// Somebody who asks from a namespace.
struct Client<'a> {
    site: &'a Site,
    from: &'a Namespace,
    base: String,
}

impl Client<'_> {
    fn ask(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Got> {
        let authorization = format!("Authorization: Bearer {token}");
        let body = body.map(Value::to_string);
        let mut arguments = vec!["--insecure", "--request", method, "--header", &authorization];
        if let Some(body) = &body {
            arguments.extend(["--header", "Content-Type: application/json", "--data-binary", body]);
        }
        curl(self.from, self.site.lab.dir(), &self.base, &arguments, path)
    }

    fn get(&self, token: &str, path: &str) -> Result<Got> {
        self.ask(token, "GET", path, None)
    }
}

fn said(got: &Got) -> Value {
    serde_json::from_slice(&got.body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&got.body)))
}

#[test]
fn the_second_port_serves_programs_alone_and_asks_each_for_its_token() -> Result<()> {
    let site = Site::start(settings())?;
    let store = Store::open(&site.lab.dir().join("state"))?;
    // Who signs in by password is not asked here; that there is somebody is.
    store.put_administrator("ann", "no hash of any password", 1)?;
    let make = |name: &str, scope| -> Result<String> {
        let secret = Secret::random();
        assert!(store.add_api_token(&Secret::hash(secret.as_str()), name, scope, 1)?);
        Ok(secret.as_str().to_owned())
    };
    let (read, write) = (make("monitoring", Scope::Read)?, make("provisioner", Scope::Write)?);
    let office = &site.lab.office;
    let client =
        |port: u16| Client { site: &site, from: office, base: format!("https://{APPLIANCE_OFFICE}:{port}") };
    let (pages, rest) = (client(8443), client(PORT));

    // A port that another program has is refused at its key, before the file is written.
    let taken = site.lab.branch.enter(|| TcpListener::bind("0.0.0.0:344"))??;
    let set = |port: u16| json!({"values": {"web.rest_port": port}});
    let got = pages.ask(&write, "PATCH", "/api/v1/configuration", Some(&set(344)))?;
    assert_eq!((got.status, &said(&got)["field"]), (422, &json!("web.rest_port")), "{got:?}");
    drop(taken);

    // The port is opened by the REST interface itself: it waits for a restart, and the restart is asked for.
    assert!(rest.get(&read, "/api/v1/status").is_err(), "nobody listens yet");
    let got = pages.ask(&write, "PATCH", "/api/v1/configuration", Some(&set(PORT)))?;
    assert_eq!(said(&got), json!({"applied": [], "waiting_for_restart": ["web.rest_port"]}), "{got:?}");
    assert!(rest.get(&read, "/api/v1/status").is_err(), "it waits for the restart");
    assert_eq!(pages.ask(&write, "POST", "/api/v1/restart", None)?.status, 202);
    let got = interrupt::wait_until(LIMIT, "answer on the second port", || {
        Ok(rest.get(&read, "/api/v1/status").ok())
    })
    .with_context(|| site.appliance.said())?;
    assert_eq!((got.status, &said(&got)["ready"]), (200, &json!(true)), "{got:?}");

    // No page, no style, no door; and nothing without TLS.
    for path in ["/", "/sign-in", "/setup?token=guess", "/sessions", "/assets/style.css", "/metrics"] {
        let got = rest.get(&write, path)?;
        assert_eq!(got.status, 404, "{path}: {got:?}");
        assert!(got.head.to_lowercase().contains("application/problem+json"), "{path}: {}", got.head);
    }
    let plain =
        curl(office, site.lab.dir(), &format!("http://{APPLIANCE_OFFICE}:{PORT}"), &[], "/api/v1/status")?;
    assert_eq!(plain.status, 400, "{plain:?}");

    // To look is not to change.
    let file = site.lab.dir().join("branchline.toml");
    let before = fs::read_to_string(&file)?;
    let text = format!("{before}\n[sip]\ntimer_t1_ms = 600\n");
    let whole = json!({"text": text});
    let got = rest.ask(&read, "PUT", "/api/v1/configuration", Some(&whole))?;
    assert_eq!((got.status, fs::read_to_string(&file)?), (403, before), "{got:?}");
    let got = rest.ask(&write, "PUT", "/api/v1/configuration", Some(&whole))?;
    assert_eq!(said(&got), json!({"applied": ["sip.timer_t1_ms"], "waiting_for_restart": []}), "{got:?}");
    assert_eq!(fs::read_to_string(&file)?, text);
    let wrong = json!({"text": text.replace("\"eth1\"", "\"wan7\"")});
    let got = rest.ask(&write, "PUT", "/api/v1/configuration", Some(&wrong))?;
    assert_eq!((got.status, &said(&got)["field"]), (422, &json!("network.interface")), "{got:?}");
    assert!(
        said(&got)["detail"].as_str().is_some_and(|words| words.contains("wan7 does not exist")),
        "{got:?}"
    );
    assert_eq!(fs::read_to_string(&file)?, text);

    // Who guesses has to wait; who has a token and is elsewhere does not.
    for attempt in 0..FREE {
        assert_eq!(rest.get("guess", "/api/v1/status")?.status, 401, "attempt {attempt}");
    }
    let got = rest.get("guess", "/api/v1/status")?;
    assert_eq!(got.status, 429, "{got:?}");
    assert!(got.head.to_lowercase().contains("retry-after: "), "{}", got.head);
    let elsewhere = Client { from: &site.lab.branch, ..client(PORT) };
    assert_eq!(elsewhere.get(&read, "/api/v1/status")?.status, 200);
    let refused = |reason| site.metric("branchline_web_refused_total", &[("reason", reason)]);
    assert!(refused("wrong_token")? >= FREE as f64 && refused("too_many_attempts")? >= 1.0);

    site.a_call_works()
}
