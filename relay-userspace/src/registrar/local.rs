//! Registrations that are granted here, while no server can.
//!
//! What is granted is a binding like any other, with the token that the server's own would have: when a server is back,
//! the phone's next REGISTER goes to it and finds nothing changed. RFC 3261 section 10.3.

use std::time::{Duration, Instant};

use super::{Binding, Own, Pending, Refusal, Registrar, Token};
use crate::sip::{
    Hop,
    transaction::keyed_hash,
    wire::{Editor, Message},
};

impl Registrar {
    /// Grants a REGISTER for at most so long. Returns the Contact lines of its 200. The time of each is taken, by its own
    /// token, between the half of `most` and all of it: phones that were registered in one moment come back in many.
    ///
    /// # Errors
    /// [`Refusal`]: it cannot be read, or there is no room.
    pub fn grant(
        &mut self,
        now: Instant,
        message: &Message,
        source: Hop,
        server_side: Own,
        most: Duration,
    ) -> Result<Vec<u8>, Refusal> {
        let mut unused = Editor::new(message);
        let pending = self.rewrite_request(&mut unused, source, server_side)?;
        if pending.wildcard {
            let tokens: Vec<Token> = self.of_aor(&pending.aor).map(|binding| binding.token).collect();
            tokens.into_iter().for_each(|token| self.remove(token));
        }
        for (token, contact, asked) in &pending.contacts {
            let granted = self.spread(*token, pending.cseq, most);
            let seconds = asked.or(pending.expires).map_or(granted, |asked| granted.min(asked));
            if seconds == 0 {
                self.remove(*token);
                continue;
            }
            self.insert(pending.binding(*token, contact.clone(), now, seconds), None);
        }
        let mut lines = Vec::new();
        for binding in self.of_aor(&pending.aor) {
            let left = binding.expires.saturating_duration_since(now).as_secs();
            lines.extend_from_slice(b"Contact: <");
            lines.extend_from_slice(&binding.contact);
            lines.extend_from_slice(format!(">;expires={left}\r\n").as_bytes());
        }
        Ok(lines)
    }

    /// Seconds between the half of `most` and all of it, another number for each phone and each REGISTER.
    fn spread(&self, token: Token, cseq: u32, most: Duration) -> u32 {
        let most = u32::try_from(most.as_secs()).unwrap_or(u32::MAX).max(1);
        let half = most.div_ceil(2);
        let hash = keyed_hash(self.secret, &[&token.to_be_bytes(), &cseq.to_be_bytes()]);
        // The remainder is smaller than a u32.
        half + u32::try_from(hash % u64::from(most - half + 1)).unwrap_or(0)
    }
}

impl Pending {
    pub(super) fn binding(&self, token: Token, contact: bytes::Bytes, now: Instant, seconds: u32) -> Binding {
        Binding {
            aor: self.aor.clone(),
            user: self.user.clone(),
            contact,
            source: self.source,
            disconnected: false,
            call_id: self.call_id.clone(),
            cseq: self.cseq,
            user_agent: self.user_agent.clone(),
            token,
            registered: now,
            expires: now + Duration::from_secs(seconds.into()).min(super::LONGEST),
        }
    }
}
