//! Faces for administrators: pages and a REST interface by HTTPS, metrics and health by HTTP.
//!
//! Nobody gets in before an administrator is set by a one-time link; then everything needs a session (pages) or a
//! token (REST). Pages are whole without scripts; htmx and server-sent events make them live. Nothing is loaded from
//! elsewhere. What is shown comes from [`Appliance`], which the daemon implements: this room knows no calls and no
//! packets, only views of them.
//!
//! Invariants: a request that changes something carries its session's token or a bearer's; a configuration that does
//! not validate is never written; whatever a stranger sends, memory, connections and password hashing stay bounded.
//! RFC 9110, 9112, 6265, 9457; OWASP's cheat sheets for sessions and request forgery.

pub mod access;
mod appliance;
mod apply;
mod assets;
mod captures;
mod guard;
mod health;
mod listener;
mod pages;
mod rest;
mod setup;
mod state;
#[cfg(test)]
mod tests;

use axum::{Router, middleware};

pub use appliance::{Appliance, Machine, Observed, TlsFacts, Which};
pub use health::{bind, serve};
pub use listener::{bind as bind_tls, serve as serve_tls};
pub use setup::Setup;
pub use state::Web;

/// The pages with the REST interface.
pub fn pages(web: &Web) -> Router {
    let router = Router::new()
        .merge(assets::router())
        .merge(pages::router(web))
        .nest(rest::ROOT, rest::router(web))
        .with_state(web.clone());
    outside(web, router)
}

/// The REST interface alone.
pub fn rest(web: &Web) -> Router {
    let router =
        Router::new().nest(rest::ROOT, rest::router(web)).fallback(rest::not_found).with_state(web.clone());
    outside(web, router)
}

/// What holds for every request and every response.
fn outside(web: &Web, router: Router) -> Router {
    router
        .layer(middleware::from_fn_with_state(web.clone(), guard::whole_body))
        .layer(middleware::from_fn_with_state(web.clone(), guard::headers))
}
