//! Who may ask.

use axum::{
    extract::{FromRequest, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use serde::de::DeserializeOwned;

use super::Problem;
use crate::{
    admin::{
        access::Secret,
        guard::{Source, has_token, session},
        state::{Web, now_unix},
    },
    metrics::names,
    store::Scope,
};

/// Who asks, for the log and for what is recorded.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) String);

/// Only for those who carry a token of this scope, or have a session.
pub(super) async fn authorise(
    State((web, scope)): State<(Web, Scope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if !web.has_administrator().await? {
        web.refused(names::web::NO_ADMINISTRATOR);
        let detail = "This appliance has no administrator yet. `branchline setup-link` on it prints the link for that.";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let caller = match bearer(request.headers()) {
        Some(token) => {
            let source = request.extensions().get::<Source>().copied();
            by_token(&web, source, token.to_owned(), scope).await?
        }
        None => by_session(&web, request.headers(), request.method())?,
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn by_token(web: &Web, source: Option<Source>, token: String, scope: Scope) -> Result<Caller, Problem> {
    let unknown = || Problem::new(StatusCode::UNAUTHORIZED, "There is no such token.");
    let Some(Source(source)) = source else { return Err(unknown()) };
    web.may_try(source, None).map_err(|wait| Problem::wait(wait.as_secs().saturating_add(1)))?;
    let found = web.store(move |store| store.use_api_token(&Secret::hash(&token), now_unix())).await?;
    let Some(found) = found else {
        web.wrong_attempt(source, None, names::web::WRONG_TOKEN);
        return Err(unknown());
    };
    if scope == Scope::Write && found.scope != Scope::Write {
        let detail = format!("Token {} may only look: its scope is read.", found.name);
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok(Caller(format!("token {}", found.name)))
}

fn by_session(web: &Web, headers: &HeaderMap, method: &Method) -> Result<Caller, Problem> {
    let Some(signed) = session(web, headers) else {
        let detail = "Send a token: `Authorization: Bearer ...`. Tokens are made on the page Administration.";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    };
    if method != Method::GET && method != Method::HEAD && !has_token(&signed, headers) {
        web.refused(names::web::FOREIGN_FORM);
        let detail = "The header X-CSRF-Token does not carry this session's token.";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    Ok(Caller(signed.session.name))
}

/// A body in JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(rejection.status(), rejection.body_text())),
        }
    }
}
