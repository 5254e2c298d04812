//! One party that knows a call by another dialog than the other one does: after a transfer that the appliance has made.
//!
//! The transferee goes on in the dialog that it had with the transferor, the target has one of its own; here they are one
//! call, whose inner names are the target's. What comes from the transferee is translated to these before anything else
//! looks at it, and what goes to it is translated as the last thing: Call-ID, From, To, the number in CSeq, routes. Between
//! the two, the call is like any other. RFC 3261 section 12.2.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    proxy::{
        call::Party,
        machine::{Proxy, Relay},
    },
    sip::{
        Hop,
        wire::{Editor, HeaderName, Message, scan},
    },
};

/// The dialog by which the caller of a call knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::proxy) struct Face {
    pub(super) call_id: String,
    /// The caller and the one that it believes to speak with: what stands in From and To, tags included.
    pub(super) own: String,
    pub(super) peer: String,
    /// Their tags.
    pub(super) own_tag: String,
    pub(super) peer_tag: String,
    /// By how much the numbers of requests to the caller are ahead.
    pub(super) ahead: u32,
}

/// What is written into a message.
struct Names<'a> {
    call_id: &'a [u8],
    from: &'a str,
    to: &'a str,
}

fn rename(editor: &mut Editor<'_>, names: &Names<'_>) {
    let message = editor.message();
    editor.replace(message.call_id(), names.call_id);
    editor.replace(message.from_value(), names.from.as_bytes());
    editor.replace(message.to_value(), names.to.as_bytes());
}

impl Face {
    pub(in crate::proxy) fn call_id(&self) -> &str {
        &self.call_id
    }

    /// A request as the caller gets it.
    pub(super) fn outward(&self, payload: Bytes) -> Bytes {
        let Ok(message) = Message::parse(&payload) else { return payload };
        let mut editor = Editor::new(&message);
        rename(&mut editor, &Names { call_id: self.call_id.as_bytes(), from: &self.peer, to: &self.own });
        editor.cseq(message.cseq().saturating_add(self.ahead));
        // response-num CSeq-num Method (RFC 3262 section 7.2)
        if let Some(header) = message.header(HeaderName::RAck) {
            let mut words = header.value.split(|byte| scan::is_space(*byte)).filter(|word| !word.is_empty());
            if let (Some(_), Some(word)) = (words.next(), words.next())
                && let Some(number) = scan::number(word)
            {
                editor.replace_fmt(word, format_args!("{}", number.saturating_add(self.ahead)));
            }
        }
        editor.finish()
    }

    /// A response as the caller gets it.
    fn answered(&self, payload: Bytes) -> Bytes {
        let Ok(message) = Message::parse(&payload) else { return payload };
        let mut editor = Editor::new(&message);
        rename(&mut editor, &Names { call_id: self.call_id.as_bytes(), from: &self.own, to: &self.peer });
        editor.finish()
    }
}

impl Proxy {
    /// A request of a party that knows its call by another dialog, as the call knows it.
    pub(in crate::proxy) fn inward(&self, hop: Hop, message: &Message) -> Option<Message> {
        if self.faces.is_empty() {
            return None;
        }
        let to_tag = message.to_tag()?;
        let numbers = self.faces.get(message.call_id())?;
        let (call, conversing, _) = numbers.iter().find_map(|number| {
            let call = self.calls.get(number)?;
            let conversing = call.conversing.as_deref()?;
            let face = conversing.face.as_ref()?;
            let fits = call.caller.source.network == hop.network
                && face.own_tag.as_bytes() == message.from_tag()
                && face.peer_tag.as_bytes() == to_tag;
            fits.then_some((call, conversing, face))
        })?;
        let mut editor = Editor::new(message);
        let from = &conversing.voice(Party::Caller).name;
        let to = &conversing.voice(Party::Callee).name;
        rename(&mut editor, &Names { call_id: &call.info.call_id, from, to });
        for header in message.headers().filter(|header| header.name == HeaderName::Route) {
            editor.replace(header.line, b"");
        }
        for route in &conversing.voice(Party::Callee).routes {
            editor.append_header("Route", format_args!("{route}"));
        }
        Message::parse(&editor.finish()).ok()
    }

    /// A request that was kept as it came, as its call knows it.
    pub(in crate::proxy) fn inner_request(&self, hop: Hop, request: Message) -> Message {
        self.inward(hop, &request).unwrap_or(request)
    }

    /// A response of a party that knows its call by another dialog, as the call knows it.
    pub(in crate::proxy) fn inward_response(&self, relay: &Relay, message: &Message) -> Option<Message> {
        let (number, Party::Callee, _) = relay.call.as_ref().filter(|_| !self.faces.is_empty())? else {
            return None;
        };
        let call = self.calls.get(number)?;
        let conversing = call.conversing.as_deref()?;
        conversing.face.as_ref()?;
        let mut editor = Editor::new(message);
        let from = &conversing.voice(Party::Callee).name;
        let to = &conversing.voice(Party::Caller).name;
        rename(&mut editor, &Names { call_id: &call.info.call_id, from, to });
        Message::parse(&editor.finish()).ok()
    }

    /// A request to a side, as that side knows its dialog.
    pub(in crate::proxy) fn face_request(&self, number: u64, toward: Party, payload: Bytes) -> Bytes {
        match self.face(number, toward) {
            Some(face) => face.outward(payload),
            None => payload,
        }
    }

    /// A response to a side, likewise.
    pub(in crate::proxy) fn face_response(&self, relay: &Relay, payload: Bytes) -> Bytes {
        let Some((number, asker, Some(_))) = &relay.call else { return payload };
        match self.face(*number, *asker) {
            Some(face) => face.answered(payload),
            None => payload,
        }
    }

    fn face(&self, number: u64, party: Party) -> Option<&Face> {
        if self.faces.is_empty() {
            return None;
        }
        let conversing = self.calls.get(&number)?.conversing.as_deref()?;
        conversing.face.as_ref().filter(|_| party == Party::Caller)
    }

    /// The routes toward a side that the requests of the other one do not have, since it knows another dialog.
    pub(in crate::proxy) fn face_routes(&self, number: u64, toward: Party) -> &[String] {
        let conversing = self.calls.get(&number).and_then(|call| call.conversing.as_deref());
        match conversing.filter(|conversing| conversing.face.is_some() && toward == Party::Caller) {
            Some(conversing) => &conversing.voice(toward).routes,
            None => &[],
        }
    }

    /// A call is known by another dialog too.
    pub(in crate::proxy) fn enter_face(&mut self, number: u64) {
        let conversing = self.calls.get(&number).and_then(|call| call.conversing.as_deref());
        if let Some(face) = conversing.and_then(|conversing| conversing.face.as_ref()) {
            let call_id = Bytes::from(face.call_id.clone());
            self.faces.entry(call_id).or_default().push(number);
        }
    }

    /// It is not any more.
    pub(in crate::proxy) fn leave_face(&mut self, number: u64, call_id: &[u8]) {
        if let Some(numbers) = self.faces.get_mut(call_id) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.faces.remove(call_id);
            }
        }
    }
}
