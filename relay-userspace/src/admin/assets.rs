//! Style, scripts and pictures: embedded, the same for everybody, no secret in them.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use rust_embed::Embed;

use super::state::Web;

/// The files of `assets/`.
#[derive(Embed)]
#[folder = "assets/"]
#[include = "*.css"]
#[include = "*.js"]
#[include = "*.svg"]
struct Files;

pub(super) fn router() -> Router<Web> {
    Router::new().route("/assets/{*file}", get(file))
}

/// A path is a key among the embedded files: there is no way from it to the file system.
async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(file) = Files::get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let tag: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let kind = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        _ => "image/svg+xml",
    };
    // Revalidated each time: after an upgrade nobody sees new pages in an old style.
    let mut response = if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, kind)], file.data).into_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_scripts_of_others_are_those_that_the_readme_names() {
        let readme = include_str!("../../assets/vendor/README.md");
        let mut checked = 0;
        for line in readme.lines().filter(|line| line.starts_with("| `")) {
            let words: Vec<&str> = line.split('`').collect();
            let (name, sum) = (words[1], words[words.len() - 2]);
            let file = Files::get(&format!("vendor/{name}")).unwrap();
            let found: String = Sha256::digest(&file.data).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, sum, "{name}");
            checked += 1;
        }
        assert_eq!(checked, 2);
    }
}
