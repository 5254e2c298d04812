//! Who a caller is said to be, where trust ends.
//!
//! Within a trust domain the network asserts who calls (P-Asserted-Identity), also of callers who do not want to be known
//! to the other party; whoever stands at its edge takes out what may not leave, and believes nothing of what comes in
//! (RFC 3325 sections 5 to 7). A network whose `identity` is `untrusted` is beyond that edge: a gateway or a provider that
//! shows callers' numbers to anybody, or a network of phones of strangers.
//!
//! - What an untrusted network asserts is taken out.
//! - Toward one, assertions go only where no privacy is asked for; with `Privacy: user` the caller becomes anonymous there
//!   for the whole dialog, and its own side goes on seeing the name that it gave (RFC 3323 sections 4 and 5.3); what tells
//!   of diversions goes only if privacy does not cover it (RFC 7044 section 10.1, RFC 5806 section 6).
//!
//! The header Privacy itself stays: what is behind must know that the caller withholds his number (RFC 3325 section 9.3).
//! Everything else passes as it came, and between trusted networks all does.

use bytes::Bytes;

use super::{
    call::Party,
    machine::{Proxy, Relay},
    measure::DropReason,
    request::{Plan, Refuse},
};
use crate::{
    net::{Identity, NetworkId},
    registrar::Own,
    sip::wire::{Editor, Header, HeaderName, Message, Method, NameAddr, scan},
};

/// Who the network says that somebody is, in the headers of RFC 3325 and of what was used before it.
const ASSERTED: [&str; 2] = ["P-Asserted-Identity", "Remote-Party-ID"];
/// What a user asks the network to say; it is for the network alone.
const PREFERRED: &str = "P-Preferred-Identity";
/// By whom a call was diverted.
const HISTORY: [&str; 2] = ["History-Info", "Diversion"];
/// What tells of the user beside From and Contact (RFC 3323 section 5.3).
const PERSONAL: [&str; 9] = [
    "Subject",
    "s",
    "Call-Info",
    "Organization",
    "User-Agent",
    "Reply-To",
    "In-Reply-To",
    "Referred-By",
    "b",
];
/// Who calls when nobody is to know.
const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// The same with its tag in a dialog.
pub(super) fn nobody(tag: &[u8]) -> String {
    format!("{ANONYMOUS};tag={}", String::from_utf8_lossy(tag))
}

/// What a message's sender does not want to be told, by its headers Privacy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    /// The identity that the network asserts.
    id: bool,
    /// Name and address as the user wrote them.
    user: bool,
    /// By whom the call was diverted.
    history: bool,
    /// More than a relay in the middle can keep back: Via, or the session itself.
    more: bool,
    /// Rather no call than one without all that.
    critical: bool,
}

impl Wish {
    fn of(message: &Message) -> Self {
        let mut wish = Self::default();
        let headers = message.headers().filter(|header| is(header, "Privacy"));
        for word in headers.flat_map(|header| header.value.split(|byte| b";,".contains(byte))) {
            match scan::trim(word).to_ascii_lowercase().as_slice() {
                b"id" => wish.id = true,
                b"user" => (wish.id, wish.user) = (true, true),
                b"history" => wish.history = true,
                b"header" | b"session" => (wish.history, wish.more) = (true, true),
                b"critical" => wish.critical = true,
                _ => {}
            }
        }
        wish
    }
}

fn is(header: &Header<'_>, name: &str) -> bool {
    header.name == HeaderName::Other && header.spelling.eq_ignore_ascii_case(name.as_bytes())
}

fn is_any(header: &Header<'_>, names: &[&str]) -> bool {
    names.iter().any(|name| is(header, name))
}

/// Whether an assertion or a diversion says itself that it is private: `;privacy=full`, `?Privacy=history`.
fn says_private(value: &[u8]) -> bool {
    const SAYS: &[u8] = b"privacy=";
    let value = value.to_ascii_lowercase();
    memchr::memmem::find_iter(&value, SAYS).any(|at| {
        let word = value.get(at + SAYS.len()..).unwrap_or_default();
        let word = word.strip_prefix(b"\"").unwrap_or(word);
        !(word.starts_with(b"off") || word.starts_with(b"none"))
    })
}

impl Proxy {
    fn trusts_identity(&self, network: NetworkId) -> bool {
        self.settings.network(network).is_none_or(|own| own.identity == Identity::Trusted)
    }

    /// Whether something has to be looked at between two networks.
    fn ends_trust(&self, from: NetworkId, to: NetworkId) -> bool {
        !(self.trusts_identity(from) && self.trusts_identity(to))
    }

    /// Whether a request goes out as one of nobody: the caller wants it, and the other network must not know.
    pub(super) fn goes_anonymously(&self, message: &Message, from: NetworkId, to: NetworkId) -> bool {
        self.trusts_identity(from) && !self.trusts_identity(to) && Wish::of(message).user
    }

    /// Refuses a request whose sender would rather not send it than be known by it (RFC 3323 section 4.2).
    pub(super) fn check_privacy(
        &self,
        message: &Message,
        from: NetworkId,
        to: NetworkId,
    ) -> Result<(), Refuse> {
        if !self.ends_trust(from, to) || self.trusts_identity(to) || message.to_tag().is_some() {
            return Ok(());
        }
        let wish = Wish::of(message);
        if wish.more && wish.critical && message.method() != &Method::Ack {
            return Err(Refuse::because(500, DropReason::PrivacyNotPossible, "Privacy Not Possible"));
        }
        Ok(())
    }

    /// The edits of a request that crosses the edge of trust.
    pub(super) fn guard_request(
        &self,
        editor: &mut Editor<'_>,
        from: NetworkId,
        to: NetworkId,
        plan: &Plan,
        own: Own,
    ) {
        if !self.ends_trust(from, to) {
            return;
        }
        let message = editor.message();
        // A request that is sent again for a challenge stands for the one that was in the dialog.
        let again = plan.standing.as_ref().filter(|(.., tag)| tag.is_some());
        let at = plan.dialog.as_ref().map(|(number, party, _)| (*number, *party));
        let at = at.or(again.map(|(number, party, _)| (*number, *party)));
        let hidden =
            at.and_then(|(number, party)| Some((party, self.calls.get(&number)?.anonymous.as_ref()?)));
        let nobody = matches!(hidden, Some((Party::Caller, _)));
        self.guard(editor, from, to, Wish { id: nobody, ..Wish::default() });
        match hidden {
            // The caller's name is nobody's at the other side, so that is what it says To; here it is the caller's.
            Some((Party::Callee, caller)) => editor.replace(message.to_value(), caller),
            Some((Party::Caller, _)) => anonymise(editor, own),
            None if self.goes_anonymously(message, from, to) => anonymise(editor, own),
            None => {}
        }
    }

    /// The same of a response to a relayed request. `request` is that one as its sender sent it, if a caller in it is nobody.
    pub(super) fn guard_response(&self, editor: &mut Editor<'_>, relay: &Relay, request: Option<&Message>) {
        let (from, to) = (relay.egress.network, relay.ingress.network);
        if !self.ends_trust(from, to) {
            return;
        }
        let message = editor.message();
        // Who is nobody in his requests is nobody in his answers.
        let nobody = request.is_some() && matches!(relay.call, Some((_, Party::Callee, _)));
        self.guard(editor, from, to, Wish { id: nobody, ..Wish::default() });
        if nobody {
            hide_contacts(editor, self.own(relay.ingress));
        }
        let Some(request) = request else { return };
        if message.from_value() != request.from_value() {
            editor.replace(message.from_value(), request.from_value());
        }
        if request.to_tag().is_some() && message.to_value() != request.to_value() {
            editor.replace(message.to_value(), request.to_value());
        }
    }

    /// Takes out what may not cross.
    fn guard(&self, editor: &mut Editor<'_>, from: NetworkId, to: NetworkId, standing: Wish) {
        let message = editor.message();
        let (believed, kept_in) = (self.trusts_identity(from), !self.trusts_identity(to));
        let mut wish = Wish::of(message);
        wish.id |= standing.id;
        for header in message.headers().filter(|header| header.name == HeaderName::Other) {
            let goes = if is_any(&header, &ASSERTED) {
                !believed || (kept_in && (wish.id || says_private(header.value)))
            } else if is(&header, PREFERRED) {
                kept_in
            } else if is_any(&header, &HISTORY) {
                kept_in && (wish.history || says_private(header.value))
            } else {
                false
            };
            if goes {
                editor.replace(header.line, b"");
            }
        }
    }
}

/// What the caller does not want to be told, as its header Privacy says it.
pub(super) fn wish(message: &Message) -> Option<String> {
    let values = message.headers().filter(|header| is(header, "Privacy"));
    let values: Vec<String> =
        values.map(|header| String::from_utf8_lossy(header.value).into_owned()).collect();
    (!values.is_empty()).then(|| values.join(";"))
}

/// Makes the sender of a request nobody.
fn anonymise(editor: &mut Editor<'_>, own: Own) {
    let message = editor.message();
    if let Some(from) = NameAddr::parse(message.from_value()) {
        let tag = from.tag().map_or_else(Vec::new, |tag| [b";tag=", tag].concat());
        editor.replace(message.from_value(), &[ANONYMOUS.as_bytes(), &tag].concat());
    }
    hide_contacts(editor, own);
    for header in message.headers() {
        let personal = is_any(&header, &PERSONAL) || header.name == HeaderName::UserAgent;
        if personal {
            editor.replace(header.line, b"");
        }
    }
}

/// Makes the Contacts of a message nobody's, before they are rewritten otherwise: of two edits of one place the first holds.
fn hide_contacts(editor: &mut Editor<'_>, own: Own) {
    let message = editor.message();
    for contact in message.addresses(HeaderName::Contact).filter(|contact| !contact.is_wildcard()) {
        let uri = format!("<sip:anonymous@{}>", own.uri());
        editor.replace(contact.value, uri.as_bytes());
    }
}

/// What is remembered of a caller who is nobody at the other side: the header From as it was.
pub(super) fn remembered(message: &Message) -> Bytes {
    Bytes::copy_from_slice(message.from_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_says_itself_that_it_is_private_is_known() {
        let rows: [(&str, &[u8], bool); 7] = [
            ("a history entry", b"<sip:a@b?Privacy=history>;index=1", true),
            ("one that is open", b"<sip:a@b?Privacy=none>;index=1", false),
            ("a diversion", b"<sip:1@a>;reason=unconditional;privacy=\"full\"", true),
            ("one that is open", b"<sip:1@a>;privacy=off", false),
            ("an old assertion", b"<sip:1@a>;party=calling;privacy=full", true),
            ("nothing said", b"<sip:1@a>", false),
            ("the second of two", b"<sip:1@a>;privacy=off, <sip:2@a>;privacy=name", true),
        ];
        for (description, value, expected) in rows {
            assert_eq!(says_private(value), expected, "{description}");
        }
    }
}
