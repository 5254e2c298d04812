//! The REST interface: who may ask what, and that its answers are what its document says.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::{Value, json};

use super::harness::{CALL, CONFIGURATION, House};
use crate::{metrics::names::web, store::Scope};

#[tokio::test]
async fn each_request_needs_a_token_of_its_scope_or_a_session_with_its_token() {
    let house = House::inhabited("scopes").await;
    let (read, write) = (house.token("look", Scope::Read), house.token("change", Scope::Write));
    let person = house.sign_in();
    let body = r#"{"user": "u", "password": "p"}"#;
    let put = |name: &str, value: &str| {
        Request::put("/api/v1/entries/1001")
            .header(header::CONTENT_TYPE, "application/json")
            .header(name, value)
            .body(Body::from(body))
            .unwrap()
    };
    let with_session = |csrf: &str| {
        let mut request = put("cookie", &person.cookie);
        request.headers_mut().insert("x-csrf-token", csrf.parse().unwrap());
        request
    };
    let rows = [
        ("nothing", put("x-nothing", ""), StatusCode::UNAUTHORIZED),
        ("an unknown token", put("authorization", "Bearer guess"), StatusCode::UNAUTHORIZED),
        ("a token to look", put("authorization", &format!("Bearer {read}")), StatusCode::FORBIDDEN),
        ("a session alone", put("cookie", &person.cookie), StatusCode::FORBIDDEN),
        ("a session with another's token", with_session("guess"), StatusCode::FORBIDDEN),
        ("a session with its token", with_session(&person.csrf), StatusCode::NO_CONTENT),
        ("a token to change", put("authorization", &format!("bearer {write}")), StatusCode::NO_CONTENT),
    ];
    for (description, request, expected) in rows {
        let answer = house.send(request).await;
        assert_eq!(answer.status, expected, "{description}: {}", answer.body);
        if !expected.is_success() {
            assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json", "{description}");
            assert_eq!(answer.json()["status"], expected.as_u16(), "{description}");
        }
    }
    assert_eq!(house.ask(Method::GET, "/entries", &read, None).await.json()[0]["registration_id"], "1001");
}

/// Compares an answer with its schema: the same fields, no more and no fewer, all the way down.
fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    };
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object()) {
        let named: BTreeSet<&String> = properties.keys().collect();
        assert_eq!(named, object.keys().collect(), "{place}");
        for (name, value) in object {
            fits(document, &properties[name], value, &format!("{place}.{name}"));
        }
    } else if let Some(items) = value.as_array() {
        for item in items {
            fits(document, &schema["items"], item, &format!("{place}[]"));
        }
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    assert!(allowed.contains(&kind), "{place} is {kind}, said to be {allowed:?}");
}

#[tokio::test]
async fn every_answer_has_the_fields_that_the_document_names() {
    let house = House::inhabited("document").await;
    let token = house.token("all", Scope::Write);
    let document = house.ask(Method::GET, "/openapi.json", "", None).await.json();
    let certificate = rcgen::generate_simple_self_signed(vec!["sip.example.com".to_owned()]).unwrap();
    house
        .store
        .certificate_seen("aa", "sip.example.com", &[certificate.cert.der().to_vec()], "why", 5)
        .unwrap();
    house.store.record_configuration(CONFIGURATION, "ann", 5).unwrap();
    house.ask(Method::PUT, "/entries/1001", &token, Some(r#"{"user": "u", "password": "p"}"#)).await;
    let capture = serde_json::json!({"call_id": CALL}).to_string();
    let begun = house.ask(Method::POST, "/captures", &token, Some(&capture)).await;
    assert_eq!(begun.status, StatusCode::CREATED, "{}", begun.body);
    let capture = begun.json()["name"].as_str().unwrap().to_owned();
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let Some(operation) = operations.get("get") else { continue };
        let concrete = path
            .replace("{call_id}", "call%2F1%3F%26%23%40host")
            .replace("{number}", "1")
            .replace("{name}", &capture);
        let answer = house.ask(Method::GET, &concrete, &token, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            // A file.
            continue;
        }
        let value = answer.json();
        if let Some(list) = value.as_array() {
            assert!(!list.is_empty(), "{path}: nothing to compare");
        }
        fits(&document, schema, &value, path);
        asked += 1;
    }
    assert_eq!(asked, 16);
    let made = house.ask(Method::POST, "/tokens", &token, Some(r#"{"name": "x", "scope": "read"}"#)).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let schema =
        &document["paths"]["/tokens"]["post"]["responses"]["201"]["content"]["application/json"]["schema"];
    fits(&document, schema, &made.json(), "POST /tokens");
}

#[tokio::test]
async fn a_configuration_is_applied_whole_or_refused_with_key_and_line() {
    let house = House::inhabited("configure").await;
    let token = house.token("change", Scope::Write);
    let ask =
        async |method, path, body: Value| house.ask(method, path, &token, Some(&body.to_string())).await;
    let seen = house.ask(Method::GET, "/configuration", &token, None).await.json();
    assert_eq!(seen["text"], CONFIGURATION);

    let wrong = CONFIGURATION.replace("timer_t1_ms = 500", "timer_t1 = 500");
    let rows = [
        (Method::PUT, json!({"text": wrong}), 422, "sip.timer_t1", Some(16)),
        (
            Method::PUT,
            json!({"text": CONFIGURATION.replace("role = \"phones\"", "role = \"servers\"")}),
            422,
            "network",
            None,
        ),
        (Method::PUT, json!({"text": CONFIGURATION, "version": "0"}), 409, "", None),
        (Method::PATCH, json!({"values": {"sip.max_calls": 0}}), 422, "sip.max_calls", None),
        (Method::PATCH, json!({"values": {"sip.max_calls": "many"}}), 422, "sip.max_calls", Some(17)),
        (Method::PATCH, json!({"values": {"sip.max_calls": {"a": 1}}}), 422, "sip.max_calls", None),
        (Method::PATCH, json!({"values": {"sip.calls": 1}}), 422, "sip.calls", None),
    ];
    for (method, body, status, field, line) in rows {
        let answer = ask(method, "/configuration", body.clone()).await;
        let problem = answer.json();
        assert_eq!(answer.status.as_u16(), status, "{body}: {problem}");
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{body}: {problem}");
        assert_eq!(problem["line"].as_u64(), line, "{body}: {problem}");
        assert_eq!(house.text(), CONFIGURATION, "{body}");
    }
    let strange = ask(Method::PATCH, "/configuration", json!({"values": {}, "more": 1})).await;
    assert_eq!(strange.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", strange.body);
    assert_eq!(strange.header(header::CONTENT_TYPE), "application/problem+json");

    let values = json!({"values": {"sip.timer_t1_ms": 600, "tls.suites": ["TLS_AES_256_GCM_SHA384"]}, "version": seen["version"]});
    let done = ask(Method::PATCH, "/configuration", values).await;
    assert_eq!(done.json(), json!({"applied": ["sip.timer_t1_ms"], "waiting_for_restart": ["tls.suites"]}));
    let expected =
        CONFIGURATION.replace("= 500", "= 600") + "\n[tls]\nsuites = [\"TLS_AES_256_GCM_SHA384\"]\n";
    assert_eq!(house.text(), expected);
    let versions = house.ask(Method::GET, "/configuration/versions", &token, None).await.json();
    assert_eq!(
        (versions[0]["applied_by"].as_str(), versions[1]["number"].as_i64()),
        (Some("token change"), Some(1))
    );
    let restored = ask(Method::POST, "/configuration/restore", json!({"number": 1})).await;
    assert_eq!((restored.status, house.text()), (StatusCode::OK, CONFIGURATION.to_owned()));
    assert_eq!(
        ask(Method::POST, "/configuration/restore", json!({"number": 99})).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn passwords_go_in_and_never_come_out_and_entries_are_checked() {
    let house = House::inhabited("secrets").await;
    let token = house.token("change", Scope::Write);
    let put = async |id: &str, body: Value| {
        house.ask(Method::PUT, &format!("/entries/{id}"), &token, Some(&body.to_string())).await
    };
    let rows = [
        ("1001", json!({"user": "u"}), "password"),
        ("10%2001", json!({"user": "u", "password": "p"}), "registration_id"),
        ("1001", json!({"user": "u\r\nv", "password": "p"}), "user"),
        ("1001", json!({"user": "u", "password": "p", "aliases": ["a b"]}), "aliases"),
    ];
    for (id, body, field) in rows {
        let answer = put(id, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.json()["field"].as_str()), (422, Some(field)), "{body}");
    }
    let entry = json!({"user": "u", "password": "swordfish", "aliases": ["2001"]});
    assert_eq!(put("1001", entry).await.status, StatusCode::NO_CONTENT);
    assert_eq!(put("1001", json!({"user": "v"})).await.status, StatusCode::NO_CONTENT);
    let kept = house.store.entries().unwrap().remove(0);
    assert_eq!((kept.user.as_str(), kept.password.as_str()), ("v", "swordfish"), "it stays as it is");
    let person = house.sign_in();
    for path in
        ["/authentication", "/authentication/edit?id=1001", "/api/v1/entries", "/diagnostics/branchline.toml"]
    {
        let answer = house.get(path, Some(&person)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(!answer.body.contains("swordfish"), "{path}");
    }
    assert_eq!(house.ask(Method::DELETE, "/entries/1001", &token, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(house.ask(Method::DELETE, "/entries/1001", &token, None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn guessing_tokens_has_to_wait_and_what_is_not_there_is_a_problem() {
    let house = House::inhabited("guess").await;
    let token = house.token("look", Scope::Read);
    for (method, path, expected) in [
        (Method::GET, "/nothing", StatusCode::NOT_FOUND),
        (Method::PUT, "/status", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/calls/nobody", StatusCode::NOT_FOUND),
    ] {
        let answer = house.ask(method, path, &token, None).await;
        let kind = answer.header(header::CONTENT_TYPE);
        assert_eq!((answer.status, kind), (expected, "application/problem+json"), "{path}");
    }
    for _ in 0..5 {
        assert_eq!(house.ask(Method::GET, "/status", "guess", None).await.status, StatusCode::UNAUTHORIZED);
    }
    let waits = house.ask(Method::GET, "/status", &token, None).await;
    assert_eq!(waits.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(waits.header(header::RETRY_AFTER).parse::<u64>().unwrap() > 0);
    assert_eq!((house.refused(web::WRONG_TOKEN), house.refused(web::TOO_MANY_ATTEMPTS)), (5, 1));
}

#[tokio::test]
async fn a_capture_is_begun_stopped_taken_away_and_removed_and_only_by_who_may_change_things() {
    let house = House::inhabited("capture").await;
    let (read, write) = (house.token("look", Scope::Read), house.token("change", Scope::Write));
    let ask = async |method, path: &str, token: &str, body: Option<Value>| {
        house.ask(method, path, token, body.map(|body| body.to_string()).as_deref()).await
    };
    let wanted = json!({"call_id": CALL, "encrypt": true});
    assert_eq!(
        ask(Method::POST, "/captures", &read, Some(wanted.clone())).await.status,
        StatusCode::FORBIDDEN
    );
    let unknown = ask(Method::POST, "/captures", &write, Some(json!({"call_id": "nobody"}))).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let too_long =
        ask(Method::POST, "/captures", &write, Some(json!({"call_id": CALL, "seconds": 601}))).await;
    assert_eq!(too_long.status, StatusCode::CONFLICT, "{}", too_long.body);
    for nonsense in
        [json!({}), json!({"call_id": CALL, "phone": "1001"}), json!({"address": "10.61.0.11/33"})]
    {
        let refused = ask(Method::POST, "/captures", &write, Some(nonsense)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.body);
    }
    let nobody = json!({"call_id": CALL, "recipients": ["age1nobody"]});
    let nobody = ask(Method::POST, "/captures", &write, Some(nobody)).await;
    assert!(nobody.status == StatusCode::CONFLICT && nobody.body.contains("age1nobody"), "{}", nobody.body);
    let begun = ask(Method::POST, "/captures", &write, Some(wanted)).await;
    assert_eq!(begun.status, StatusCode::CREATED);
    let path = format!("/captures/{}", begun.json()["name"].as_str().unwrap());
    assert_eq!(ask(Method::DELETE, &path, &write, None).await.status, StatusCode::CONFLICT, "it runs");
    let stopped = ask(Method::POST, &format!("{path}/stop"), &write, None).await;
    assert_eq!(stopped.status, StatusCode::NO_CONTENT);
    house.captures.one_ended().await;
    let content = format!("{path}/content");
    assert_eq!(ask(Method::GET, &content, &read, None).await.status, StatusCode::FORBIDDEN);
    let taken = ask(Method::GET, &content, &write, None).await;
    assert_eq!(taken.header(header::CONTENT_TYPE), "application/x-pcapng");
    assert!(taken.body.starts_with("\n\r\r\n") && taken.body.contains(CALL), "{:?}", taken.body);

    let person = house.sign_in();
    let page = house.get("/diagnostics", Some(&person)).await.body;
    assert!(page.contains(&format!("{path}/content")) && page.contains("sealed"), "{page}");
    assert!(page.contains("10.61.0.11") && !page.contains("<script>alert"), "the phone's line is escaped");
    let other = house.get("/diagnostics?phone=10.61.0.99", Some(&person)).await.body;
    assert!(other.contains("No line was received."), "{other}");
    let wrong = house.post("/captures/start", &person, &[("call_id", "nobody")]).await;
    assert_eq!(wrong.status, StatusCode::SEE_OTHER);
    assert!(house.get("/diagnostics", Some(&person)).await.body.contains("Not done: no call with Call-ID"));
    house.post("/captures/start", &person, &[("who", "")]).await;
    assert!(house.get("/diagnostics", Some(&person)).await.body.contains("name a phone or an address"));
    house.post("/captures/start", &person, &[("call_id", CALL)]).await;
    let call = house.get("/sessions/call?id=call/1%3F%26%23@host", Some(&person)).await.body;
    assert!(call.contains("The capture has begun.") && call.contains("/stop\""), "{call}");
    assert_eq!(ask(Method::DELETE, &path, &write, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ask(Method::DELETE, &path, &write, None).await.status, StatusCode::NOT_FOUND);
}
