//! REST: what the pages show and do, for programs. JSON; errors as RFC 9457 problems; described by an OpenAPI document
//! that is served beside it and held against the routes by a test.
//!
//! A request carries a token (`Authorization: Bearer`, RFC 6750), or comes from a page: then its session's cookie and,
//! if it changes something, its session's token. Tokens have a scope: to look, or to change, too.

mod access;
mod captures;
mod changes;
mod configuration;
mod look;
mod problem;
mod traces;

use axum::{
    Json, Router,
    http::Method,
    middleware::from_fn_with_state,
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, delete, get, patch, post, put},
};

pub(super) use problem::Problem;

use super::state::Web;
use crate::store::Scope;

/// Where the interface begins.
pub(super) const ROOT: &str = "/api/v1";

/// The document.
const DOCUMENT: &str = include_str!("openapi.json");

/// One route.
struct Route {
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Web>,
}

/// Who may ask.
enum Access {
    /// Anybody.
    Open,
    /// Who has a token or a session; to change something, with the scope for that.
    Known,
    /// Who could change something: what is shown is more than how the appliance is.
    Confidential,
}

/// All of them.
fn routes() -> Vec<Route> {
    let open = |path, handler| Route { method: Method::GET, path, access: Access::Open, handler };
    let look = |path, handler| Route { method: Method::GET, path, access: Access::Known, handler };
    let confidential =
        |path, handler| Route { method: Method::GET, path, access: Access::Confidential, handler };
    let change = |method, path, handler| Route { method, path, access: Access::Known, handler };
    vec![
        open("/openapi.json", get(document)),
        look("/status", get(look::status)),
        look("/calls", get(look::calls)),
        look("/calls/{call_id}", get(look::call)),
        look("/flows", get(look::flows)),
        look("/phones", get(look::phones)),
        look("/about", get(look::about)),
        look("/configuration", get(configuration::read)),
        change(Method::PUT, "/configuration", put(configuration::replace)),
        change(Method::PATCH, "/configuration", patch(configuration::set)),
        look("/configuration/versions", get(configuration::versions)),
        look("/configuration/versions/{number}", get(configuration::version)),
        change(Method::POST, "/configuration/restore", post(configuration::restore)),
        change(Method::POST, "/restart", post(configuration::restart)),
        look("/entries", get(changes::entries)),
        change(Method::PUT, "/entries/{registration_id}", put(changes::put_entry)),
        change(Method::DELETE, "/entries/{registration_id}", delete(changes::remove_entry)),
        look("/certificates", get(changes::certificates)),
        change(Method::POST, "/certificates/{fingerprint}/trust", post(changes::trust)),
        change(Method::DELETE, "/certificates/{fingerprint}", delete(changes::forget)),
        look("/captures", get(captures::list)),
        change(Method::POST, "/captures", post(captures::start)),
        confidential("/captures/{name}/content", get(captures::content)),
        change(Method::POST, "/captures/{name}/stop", post(captures::stop)),
        change(Method::DELETE, "/captures/{name}", delete(captures::remove)),
        look("/traces", get(traces::list)),
        confidential("/traces/{call_id}", get(traces::one)),
        confidential("/traces/{call_id}/content", get(traces::file)),
        look("/tokens", get(changes::tokens)),
        change(Method::POST, "/tokens", post(changes::add_token)),
        change(Method::DELETE, "/tokens/{name}", delete(changes::remove_token)),
    ]
}

pub(super) fn router(web: &Web) -> Router<Web> {
    let mut router = Router::new();
    for Route { method, path, access, handler } in routes() {
        let looks = method == Method::GET && !matches!(access, Access::Confidential);
        let scope = if looks { Scope::Read } else { Scope::Write };
        let handler = match access {
            Access::Open => handler,
            Access::Known | Access::Confidential => {
                handler.layer(from_fn_with_state((web.clone(), scope), access::authorise))
            }
        };
        router = router.route(path, handler);
    }
    router.fallback(not_found).method_not_allowed_fallback(wrong_method)
}

async fn document() -> Response {
    let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    Json(document).into_response()
}

pub(super) async fn not_found() -> Problem {
    Problem::not_found("There is no such path; /api/v1/openapi.json names those that there are.")
}

async fn wrong_method() -> Problem {
    Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "This path does not take this method.")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_the_document_has_no_other() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut documented = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let path_parameters: BTreeSet<&str> =
                    path.split('{').skip(1).map(|part| part.split('}').next().unwrap()).collect();
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let named: BTreeSet<&str> = parameters
                    .iter()
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                assert_eq!(path_parameters, named, "{method} {path}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
                assert!(operation["summary"].is_string(), "{method} {path}");
                documented.insert((method.to_uppercase(), path.clone()));
            }
        }
        let served = routes().iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
        assert_eq!(documented, served);
        let server = document["servers"][0]["url"].as_str();
        assert_eq!((document["openapi"].as_str(), server), (Some("3.1.0"), Some(ROOT)));
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn references(value: &serde_json::Value, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(|target| target.as_str()).map(str::to_owned));
                    map.values().for_each(|value| references(value, found));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
