//! Certificates of servers that no authority vouches for: what they say, why they are not trusted, and the deliberate
//! act of trusting one.

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
    response::{IntoResponse as _, Redirect, Response},
};
use tracing::warn;

use super::{
    frame::{Frame, PageError, attachment, show},
    words,
};
use crate::{
    admin::{
        TlsFacts,
        access::Notice,
        guard::{Fields, Signed},
        state::Web,
    },
    store::SeenCertificate,
    tls::{Described, describe},
};

/// The page's path.
const PAGE: &str = "/certificates";

#[derive(Template)]
#[template(path = "certificates.html")]
struct CertificatesPage {
    frame: Frame,
    certificates: Vec<(SeenCertificate, String)>,
    tls: TlsFacts,
    authority: Option<Described>,
}

#[derive(Template)]
#[template(path = "certificate.html")]
struct CertificatePage {
    frame: Frame,
    seen: SeenCertificate,
    fingerprint: String,
    chain: Vec<Described>,
    unconfirmed: bool,
}

/// A fingerprint in pairs, as other programs show it.
fn pairs(fingerprint: &str) -> String {
    let pairs: Vec<&str> =
        fingerprint.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok()).collect();
    pairs.join(":").to_uppercase()
}

async fn find(web: &Web, fingerprint: &str) -> Result<SeenCertificate, PageError> {
    let all = web.store(|store| store.certificates()).await?;
    all.into_iter().find(|seen| seen.fingerprint == fingerprint).ok_or(PageError::NotFound)
}

pub(super) async fn page(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
) -> Result<Response, PageError> {
    let certificates = web.store(|store| store.certificates()).await?;
    let named = certificates.into_iter().map(|seen| {
        let name = describe(&seen.chain_pem)
            .first()
            .map_or_else(String::new, |first| first.subject.common_name.clone());
        (seen, name)
    });
    let certificates = named.collect();
    let tls = web.appliance().tls();
    let authority = tls.authority.as_deref().and_then(|pem| describe(pem).into_iter().next());
    let frame = Frame::new(&web, &signed, "Certificates", PAGE);
    Ok(show(&CertificatesPage { frame, certificates, tls, authority }))
}

/// The certificate of the own authority, for phones.
pub(super) async fn authority(State(web): State<Web>) -> Result<Response, PageError> {
    let pem = web.appliance().tls().authority.ok_or(PageError::NotFound)?;
    Ok(attachment("branchline-authority.pem", "application/x-pem-file", pem))
}

fn detailed(web: &Web, signed: &Signed, seen: SeenCertificate, unconfirmed: bool) -> Response {
    let (fingerprint, chain) = (pairs(&seen.fingerprint), describe(&seen.chain_pem));
    let frame = Frame::new(web, signed, format!("Certificate of {}", seen.server), PAGE);
    show(&CertificatePage { frame, seen, fingerprint, chain, unconfirmed })
}

pub(super) async fn details(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Path(fingerprint): Path<String>,
) -> Result<Response, PageError> {
    let seen = find(&web, &fingerprint).await?;
    Ok(detailed(&web, &signed, seen, false))
}

pub(super) async fn chain(
    State(web): State<Web>,
    Path(fingerprint): Path<String>,
) -> Result<Response, PageError> {
    let seen = find(&web, &fingerprint).await?;
    Ok(attachment(&format!("{}.pem", seen.fingerprint), "application/x-pem-file", seen.chain_pem))
}

pub(super) async fn trust(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Extension(fields): Extension<Fields>,
    Path(fingerprint): Path<String>,
) -> Result<Response, PageError> {
    let seen = find(&web, &fingerprint).await?;
    if fields.get("compared").is_empty() {
        return Ok(detailed(&web, &signed, seen, true));
    }
    let (wanted, by) = (fingerprint.clone(), signed.session.name.clone());
    if !web.ask(move |appliance| appliance.trust_certificate(&wanted, &by)).await? {
        return Err(PageError::NotFound);
    }
    let notice = Notice::Done(format!("The certificate of {} is trusted.", seen.server));
    web.sessions().leave_notice(&signed.id, notice);
    Ok(Redirect::to(PAGE).into_response())
}

pub(super) async fn forget(
    State(web): State<Web>,
    Extension(signed): Extension<Signed>,
    Path(fingerprint): Path<String>,
) -> Result<Response, PageError> {
    let seen = find(&web, &fingerprint).await?;
    let wanted = fingerprint.clone();
    web.ask(move |appliance| appliance.forget_certificate(&wanted)).await?;
    warn!(by = signed.session.name, server = seen.server, fingerprint, "server certificate forgotten");
    let notice = Notice::Done(format!("The certificate of {} is forgotten.", seen.server));
    web.sessions().leave_notice(&signed.id, notice);
    Ok(Redirect::to(PAGE).into_response())
}
