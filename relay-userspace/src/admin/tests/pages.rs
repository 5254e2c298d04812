//! The pages' guard, and what cannot be done to them.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};

use super::harness::{CONFIGURATION, HOST, HOSTILE, House, MISSING, NAME, ORIGIN, PASSWORD, encoded, form};
use crate::metrics::names::web;

/// Every page that has no parameters.
const PAGES: &[&str] = &[
    "/",
    "/sessions",
    "/phones",
    "/configuration/networks",
    "/configuration/servers",
    "/configuration/protocols",
    "/configuration/survival",
    "/configuration/media",
    "/configuration/services",
    "/configuration/diagnostics",
    "/configuration/administration",
    "/configuration/history",
    "/certificates",
    "/authentication",
    "/diagnostics",
    "/administration",
    "/about",
];

/// Everything that a form is sent to.
const FORMS: &[&str] = &[
    "/configuration/networks",
    "/configuration/networks/begin",
    "/restart",
    "/configuration/networks/add",
    "/configuration/networks/remove",
    "/configuration/protocols",
    "/configuration/survival",
    "/configuration/history/restore",
    "/authentication",
    "/authentication/remove",
    "/certificates/aa/trust",
    "/certificates/aa/forget",
    "/administration/own",
    "/administration/add",
    "/administration/remove",
    "/administration/tokens/add",
    "/administration/tokens/remove",
    "/sign-out",
];

#[tokio::test]
async fn before_there_is_an_administrator_nobody_gets_in_but_by_the_one_time_link() {
    let house = House::new("door");
    for path in
        PAGES.iter().chain(&["/sign-in", "/events/status", "/api/v1/status", "/setup", "/setup?token=x"])
    {
        let answer = house.get(path, None).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    let link = house.setup.issue(std::time::Instant::now()).links.remove(0);
    let token = link.split_once("token=").unwrap().1;
    assert_eq!(house.get(&format!("/setup?token={token}"), None).await.status, StatusCode::OK);
    let redeem = |password: &'static str, repeated: &'static str| {
        let fields = [("token", token), ("name", NAME), ("password", password), ("repeated", repeated)];
        form("/setup").header(header::ORIGIN, ORIGIN).body(encoded(fields.iter())).unwrap()
    };
    let short = house.send(redeem("short", "short")).await;
    assert_eq!(short.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(short.body.contains("at least 10 characters"), "{}", short.body);
    let done = house.send(redeem(PASSWORD, PASSWORD)).await;
    assert_eq!((done.status, done.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/"));
    let cookie = done.header(header::SET_COOKIE).to_owned();
    let (id, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Strict");
    assert_eq!(id.len(), "__Host-branchline=".len() + 43, "256 bits");
    let again = house.send(redeem(PASSWORD, PASSWORD)).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "the link is used");
    assert!(house.refused(web::NO_ADMINISTRATOR) > 0 && house.refused(web::SETUP_LINK) > 0);
}

#[tokio::test]
async fn every_page_needs_a_session_and_shows_whether_calls_work() {
    let house = House::inhabited("pages").await;
    let person = house.sign_in();
    for path in PAGES {
        let stranger = house.get(path, None).await;
        let target = format!("/sign-in?next={}", path.replace('/', "%2F"));
        assert_eq!(
            (stranger.status, stranger.header(header::LOCATION)),
            (StatusCode::SEE_OTHER, &*target),
            "{path}"
        );
        let answer = house.get(path, Some(&person)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        let why = "<strong>Not ready:</strong> all media ports of network &#34;office&#34; are in use";
        assert!(answer.body.contains(why), "{path}: {}", answer.body);
        for (name, expected) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), expected, "{path}");
        }
        let policy = answer.header(header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        for inline in ["<style", " style=", " onclick=", "javascript:", "src=\"http", "href=\"http", "\"//"] {
            assert!(!answer.body.contains(inline), "{path} has {inline}");
        }
    }
    let live = house.get("/events/status", None).await;
    assert_eq!(live.status, StatusCode::UNAUTHORIZED);
    let htmx = Request::get("/sessions?q=a").header("hx-request", "true").body(Body::empty()).unwrap();
    let htmx = house.send(htmx).await;
    assert_eq!(
        (htmx.status, htmx.header("hx-redirect")),
        (StatusCode::UNAUTHORIZED, "/sign-in?next=%2Fsessions%3Fq%3Da")
    );
}

#[tokio::test]
async fn a_form_counts_only_from_the_pages_own_origin_with_the_sessions_token() {
    let house = House::inhabited("forms").await;
    let (person, other) = (house.sign_in(), house.sign_in());
    for path in FORMS {
        for (description, origin, csrf) in [
            ("no token", Some(ORIGIN), ""),
            ("another session's token", Some(ORIGIN), &*other.csrf),
            ("a part of the token", Some(ORIGIN), &person.csrf[..42]),
            ("another origin", Some("https://evil.example"), &*person.csrf),
            ("no origin", None, &*person.csrf),
        ] {
            let mut request = form(path).header(header::COOKIE, &person.cookie);
            if let Some(origin) = origin {
                request = request.header(header::ORIGIN, origin);
            }
            let fields = [("csrf", csrf), ("sip.max_calls", "1"), ("name", "x"), ("registration_id", "1")];
            let answer = house.send(request.body(encoded(fields.iter())).unwrap()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}, {description}");
        }
    }
    assert_eq!(house.refused(web::FOREIGN_FORM), 5 * FORMS.len() as u64);
    assert_eq!(house.text(), CONFIGURATION);
    assert_eq!(house.get("/", Some(&person)).await.status, StatusCode::OK, "still signed in");
    // The same with the token in htmx's header.
    let request = form("/sign-out").header(header::COOKIE, &person.cookie).header(header::ORIGIN, ORIGIN);
    let request = request.header("x-csrf-token", &person.csrf).body(Body::empty()).unwrap();
    assert_eq!(house.send(request).await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.get("/", Some(&person)).await.status, StatusCode::SEE_OTHER, "signed out");
}

#[tokio::test]
async fn wrong_names_and_wrong_passwords_get_one_answer_and_then_have_to_wait() {
    let house = House::inhabited("wrong").await;
    let attempt = |name: &'static str, password: &'static str| {
        let fields = [("name", name), ("password", password), ("next", "/about")];
        form("/sign-in").header(header::ORIGIN, ORIGIN).body(encoded(fields.iter())).unwrap()
    };
    let right = house.send(attempt(NAME, PASSWORD)).await;
    assert_eq!((right.status, right.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/about"));
    let wrong = house.send(attempt(NAME, "wrong")).await;
    let unknown = house.send(attempt("bob", "wrong")).await;
    assert_eq!((wrong.status, unknown.status), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    assert_eq!(wrong.body.replace("value=\"ann\"", "value=\"bob\""), unknown.body);
    for _ in 0..3 {
        house.send(attempt(NAME, "wrong")).await;
    }
    let waits = house.send(attempt(NAME, PASSWORD)).await;
    assert_eq!(waits.status, StatusCode::TOO_MANY_REQUESTS, "even with the right one");
    assert!(waits.body.contains("Too many wrong attempts"), "{}", waits.body);
    assert_eq!((house.refused(web::WRONG_PASSWORD), house.refused(web::TOO_MANY_ATTEMPTS)), (5, 1));
}

#[tokio::test]
async fn the_certificate_of_the_own_authority_is_given_to_who_is_signed_in() {
    let house = House::inhabited("authority").await;
    let person = house.sign_in();
    let page = house.get("/certificates", Some(&person)).await;
    assert!(page.body.contains("href=\"/certificates/authority.pem\""), "{}", page.body);
    let pem = house.get("/certificates/authority.pem", Some(&person)).await;
    assert_eq!((pem.status, pem.body.as_str()), (StatusCode::OK, "-----BEGIN CERTIFICATE-----\n"));
    assert!(pem.header(header::CONTENT_DISPOSITION).contains("branchline-authority.pem"));
    let stranger = house.get("/certificates/authority.pem", None).await;
    assert_ne!(stranger.status, StatusCode::OK);
}

#[tokio::test]
async fn what_does_not_validate_is_told_at_its_field_and_never_written() {
    let house = House::inhabited("apply").await;
    let person = house.sign_in();
    let version = |body: &str| body.split("name=\"version\" value=\"").nth(1).unwrap()[..64].to_owned();
    let shown = house.get("/configuration/protocols", Some(&person)).await;
    let version = version(&shown.body);
    let rows = [
        ("out of range", "0", "0 is out of range: 1 to 60000"),
        ("no number", "soon", "&#34;soon&#34; is not a whole number"),
        ("a try to leave the string", "500\n[log]\nlevel = \"trace\"", "is not a whole number"),
    ];
    let others = [
        ("sip.timer_t2_ms", "1000"),
        ("sip.timer_t4_ms", "5000"),
        ("sip.invite_retries", "3"),
        ("sip.other_retries", "4"),
        ("sip.tcp_connect_timeout_ms", "2000"),
        ("sip.tcp_above_bytes", "1300"),
        ("sip.keep_entry_passwords", "false"),
        ("sip.max_calls", "10000"),
        ("sip.ring_timeout_seconds", "180"),
        ("dscp.sip", "24"),
        ("dscp.sip_priority", "3"),
        ("tls.client_certificates", "off"),
    ];
    let fields = |t1: &'static str, version: &str| -> Vec<(&str, String)> {
        let mut fields: Vec<_> = others.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        fields.extend([("sip.timer_t1_ms", t1.to_owned()), ("version", version.to_owned())]);
        fields
    };
    let send = async |fields: Vec<(&str, String)>| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(key, value)| (*key, value.as_str())).collect();
        house.post("/configuration/protocols", &person, &fields).await
    };
    for (description, typed, expected) in rows {
        let answer = send(fields(typed, &version)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{description}: {}", answer.body);
        let error = answer.body.split("id=\"sip.timer_t1_ms-error\">").nth(1).unwrap_or_default();
        assert!(error.split('<').next().unwrap_or_default().contains(expected), "{description}: {error}");
        assert_eq!(house.text(), CONFIGURATION, "{description}");
    }
    let stale = send(fields("600", &"0".repeat(64))).await;
    assert_eq!(stale.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(stale.body.contains("changed by somebody else meanwhile"), "{}", stale.body);
    assert_eq!(house.text(), CONFIGURATION);
    let done = send(fields("600", &version)).await;
    assert_eq!(
        (done.status, done.header(header::LOCATION)),
        (StatusCode::SEE_OTHER, "/configuration/protocols")
    );
    let expected = CONFIGURATION.replace("timer_t1_ms = 500 # as ever", "timer_t1_ms = 600 # as ever");
    assert_eq!(house.text(), expected, "one value, and every other byte as it was");
    let next = house.get("/about", Some(&person)).await;
    assert!(next.body.contains("Applied: sip.timer_t1_ms."), "{}", next.body);
    let versions: Vec<String> =
        house.store.configuration_versions().unwrap().into_iter().map(|version| version.applied_by).collect();
    assert_eq!(versions, [NAME, "found in the file"]);
}

#[tokio::test]
async fn the_page_about_protocols_names_the_certificate_in_force_and_counts_authorities() {
    let house = House::inhabited("tls").await;
    let shown = house.get("/configuration/protocols", Some(&house.sign_in())).await;
    assert!(
        shown.body.contains("<dt>Certificate installed</dt><dd>the appliance's own</dd>"),
        "{}",
        shown.body
    );
    assert!(shown.body.contains("<dt>Trusted authorities</dt><dd>42</dd>"), "{}", shown.body);
}

#[tokio::test]
async fn a_file_without_networks_gets_its_first_configuration_whole_or_not_at_all_and_then_a_restart() {
    let house = House::inhabited("first").await;
    let person = house.sign_in();
    let empty = "# Yours.\n";
    std::fs::write(&house.file, empty).unwrap();
    let shown = house.get("/configuration/networks", Some(&person)).await;
    assert!(shown.body.contains("First configuration"), "{}", shown.body);
    let version = shown.body.split("name=\"version\" value=\"").nth(1).unwrap()[..64].to_owned();
    let begin = async |wan: &str, servers: &str| {
        let fields = [("office", "eth1"), ("wan", wan), ("servers", servers), ("version", &version)];
        house.post("/configuration/networks/begin", &person, &fields).await
    };
    for (description, wan, servers, words) in [
        ("one interface for both", "eth1", "10.62.0.10", "the phones are by this interface already"),
        ("none", "", "10.62.0.10", "choose an interface"),
        ("one that the host does not have", MISSING, "10.62.0.10", "interface wan7 does not exist"),
    ] {
        let refused = begin(wan, servers).await;
        let said = (refused.status, house.text());
        assert_eq!(said, (StatusCode::UNPROCESSABLE_ENTITY, empty.to_owned()), "{description}");
        let at = refused.body.split("id=\"wan-error\"").nth(1).unwrap_or_default();
        assert!(at.contains(words), "{description}: {}", refused.body);
    }
    let refused = begin("eth0", "10.62.0").await;
    assert_eq!((refused.status, house.text()), (StatusCode::UNPROCESSABLE_ENTITY, empty.to_owned()));
    assert!(refused.body.contains("is not a SIP server"), "{}", refused.body);
    assert_eq!(begin("eth0", "10.62.0.10:5060\r\n10.62.0.11").await.status, StatusCode::SEE_OTHER);
    let config = crate::config::Config::read(&house.file).unwrap();
    assert_eq!((config.networks().count(), config.upstream.servers.as_ref().len()), (2, 2));
    // What it could not start with is not restarted into.
    let good = house.text();
    std::fs::write(&house.file, good.replace("eth0", MISSING)).unwrap();
    assert_eq!(house.post("/restart", &person, &[]).await.status, StatusCode::SEE_OTHER);
    let told = house.get("/", Some(&person)).await;
    assert!(told.body.contains("Not restarted, since it could not start"), "{}", told.body);
    assert!(told.body.contains("interface wan7 does not exist"), "{}", told.body);
    std::fs::write(&house.file, good).unwrap();
    assert_eq!(house.post("/restart", &person, &[]).await.status, StatusCode::OK);
    while house.restarts.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_others_say_is_shown_and_never_taken_for_markup() {
    let house = House::inhabited("hostile").await;
    let person = house.sign_in();
    let escaped = "&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39; &#38; &#60;b&#62;";
    for path in [
        "/sessions",
        "/sessions/call?id=call%2F1%3F%26%23%40host",
        "/sessions/messages?id=call%2F1%3F%26%23%40host",
        "/phones",
        "/phones?q=script",
    ] {
        let answer = house.get(path, Some(&person)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.body.contains(escaped) && !answer.body.contains(HOSTILE), "{path}: {}", answer.body);
    }
    let query = "/sessions?q=%22%3E%3Cscript%3E&page=%22%3E%3Cscript%3E&ended=%22%3E";
    let filter = house.get(query, Some(&person)).await;
    assert!(!filter.body.contains("\"><script>"), "{}", filter.body);
    let link = "href=\"/sessions/call?id=call%2F1%3F%26%23%40host\"";
    assert!(house.get("/sessions", Some(&person)).await.body.contains(link));
}

#[tokio::test]
async fn the_messages_of_a_call_are_on_a_page_with_what_was_changed_and_in_a_file() {
    let house = House::inhabited("messages").await;
    let person = house.sign_in();
    let call = house.get("/sessions/call?id=call%2F1%3F%26%23%40host", Some(&person)).await;
    let link = "/sessions/messages?id=call%2F1%3F%26%23%40host";
    assert!(call.body.contains(&format!("href=\"{link}\"")), "{}", call.body);
    let page = house.get(link, Some(&person)).await;
    assert!(page.body.contains("+ Via: SIP/2.0/UDP 10.61.0.1;branch=z9hG4bKo"), "{}", page.body);
    let file = house.get(&link.replace("messages?", "messages.pcapng?"), Some(&person)).await;
    assert_eq!((file.status, file.header(header::CONTENT_TYPE)), (StatusCode::OK, "application/x-pcapng"));
    for path in ["/sessions/messages?id=nobody", "/sessions/messages.pcapng?id=nobody"] {
        assert_eq!(house.get(path, Some(&person)).await.status, StatusCode::NOT_FOUND);
        assert_ne!(house.get(path, None).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn there_is_no_way_to_files_and_headers_by_what_is_asked_for() {
    let house = House::inhabited("traversal").await;
    let person = house.sign_in();
    for path in [
        "/assets/../Cargo.toml",
        "/assets/..%2FCargo.toml",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets//etc/passwd",
        "/assets/vendor/README.md",
        "/assets/vendor%00/htmx.min.js",
        "/configuration/..%2F..%2Fetc",
        "/configuration/history/..%2F1",
        "/certificates/..%2F..%2Fetc%2Fpasswd/chain.pem",
        "/certificates/a%0d%0aSet-Cookie:x/chain.pem",
    ] {
        let answer = house.get(path, Some(&person)).await;
        assert!(
            [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
        assert!(answer.headers.get(header::SET_COOKIE).is_none(), "{path}");
    }
    assert_eq!(
        house.get("/assets/style.css", None).await.header(header::CONTENT_TYPE),
        "text/css; charset=utf-8"
    );
    let fields = [("name", NAME), ("password", PASSWORD), ("next", "/a\r\nSet-Cookie: b=c")];
    let request = form("/sign-in").header(header::ORIGIN, ORIGIN).body(encoded(fields.iter())).unwrap();
    let answer = house.send(request).await;
    assert_eq!((answer.status, answer.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/"));
    let large = Request::builder().method(Method::POST).uri("/sign-in").header(header::HOST, HOST);
    let large = house.send(large.body(Body::from(vec![b'a'; 300 * 1024])).unwrap()).await;
    assert_eq!((large.status, house.refused(web::BODY)), (StatusCode::PAYLOAD_TOO_LARGE, 1));
}
