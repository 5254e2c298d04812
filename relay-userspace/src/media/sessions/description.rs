//! What session descriptions say of a session's streams, and what is written into those that go on.

use std::net::SocketAddr;

use relay_ebpf::FlowKind;

use super::{MediaNetwork, Session, Sessions};
use crate::{
    media::{
        ice::{self, Components},
        protection::{self, Leg, Plan, Proposal, Refused},
        stream::{Remote, Side, Wish, usable},
        surface::MediaError,
    },
    net::{NetworkId, SrtpPolicy},
    sdp::{Ice, Rewriter, Session as Description, Target},
};

/// RFC 5761 section 5.1.1.
const RTCP_MUX: &str = "rtcp-mux";
/// RFC 8858 section 3.
const RTCP_MUX_ONLY: &str = "rtcp-mux-only";

/// What a description is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Offer,
    Answer,
}

impl Sessions {
    /// Where a party on `network` wants the packets of each of its streams; none for streams that are
    /// refused, or that no relay of datagrams can carry.
    pub(super) fn wishes(
        &self,
        network: NetworkId,
        description: &Description<'_>,
    ) -> Result<Vec<Option<Wish>>, MediaError> {
        let ours = self.network(network)?;
        description
            .media
            .iter()
            .map(|media| {
                if media.is_disabled() || !media.protocol.is_datagram() {
                    return Ok(None);
                }
                let connection = description.connection_of(media).map(|connection| connection.address);
                let ip = usable(connection, ours)?;
                let rtp = ip.map(|ip| SocketAddr::new(ip, media.port));
                let rtcp = match &media.rtcp {
                    Some(rtcp) => {
                        let ip = match rtcp.connection {
                            Some(connection) => usable(Some(connection.address), ours)?,
                            None => ip,
                        };
                        ip.map(|ip| SocketAddr::new(ip, rtcp.port))
                    }
                    None => ip.zip(media.port.checked_add(1)).map(|(ip, port)| SocketAddr::new(ip, port)),
                };
                let remote = Remote { rtp, rtcp: rtcp.filter(|rtcp| rtcp.port() != 0) };
                self.check_own(remote)?;
                let mux = media.rtcp_mux && media.protocol.is_rtp();
                Ok(Some(Wish { remote, direction: description.direction_of(media), mux }))
            })
            .collect()
    }

    /// What the policies of both networks make of each stream of an offer; none for those that are no RTP.
    pub(super) fn proposals(
        &self,
        session: &Session,
        side: Side,
        description: &Description<'_>,
        wishes: &[Option<Wish>],
    ) -> Result<Vec<Option<Proposal>>, MediaError> {
        let own = self.network(session.network(side))?;
        let other = self.network(session.network(side.other()))?;
        let mut proposals = Vec::with_capacity(wishes.len());
        for (index, (media, wish)) in description.media.iter().zip(wishes).enumerate() {
            let (keys, why) = protection::keys(media);
            let Some(offered) = protection::form(media, !keys.is_empty()).filter(|_| wish.is_some()) else {
                proposals.push(None);
                continue;
            };
            let known = session.streams.get(index).and_then(Option::as_ref);
            let last = known.and_then(|stream| stream.branches.last());
            let legs = match (known.zip(last), side) {
                (None, _) => (&Leg::Plain, &Leg::Plain),
                (Some((stream, branch)), Side::A) => (&stream.a.leg, &branch.party.leg),
                (Some((stream, branch)), Side::B) => (&branch.party.leg, &stream.a.leg),
            };
            let plan = protection::plan(own.srtp, other.srtp, offered, protection::now(legs)).map_err(|refused| {
                let stream = format!("stream {} ({})", index + 1, String::from_utf8_lossy(media.kind));
                let why = why.map_or_else(String::new, |why| format!(" (a=crypto: {why})"));
                MediaError::Srtp(match refused {
                    Refused::NeedsSrtp => format!(
                        "network {} takes only SRTP with keys by SDES, and {stream} offers none that can be used{why}",
                        own.name
                    ),
                    Refused::NeedsRtp => {
                        format!("network {} takes only RTP, and {stream} offers only SRTP", own.name)
                    }
                    Refused::CannotTranslate => format!(
                        "{stream} offers SRTP whose keys cannot be read{why}, and network {} has another policy",
                        other.name
                    ),
                })
            })?;
            let proposal = Proposal::new(side, plan, media, &keys, legs, self.settings.random);
            proposals.push(Some(proposal.map_err(|error| MediaError::Datapath(error.to_string()))?));
        }
        Ok(proposals)
    }

    /// The answerer's leg of each stream that it accepts.
    pub(super) fn legs(
        &self,
        session: &Session,
        offerer: Side,
        branch: &[u8],
        description: &Description<'_>,
        wishes: &[Option<Wish>],
    ) -> Result<Vec<Option<Leg>>, MediaError> {
        let answerer = self.network(session.network(offerer.other()))?;
        let strict = [offerer, offerer.other()].into_iter().any(|side| {
            self.network(session.network(side)).is_ok_and(|network| network.srtp == SrtpPolicy::Require)
        });
        let legs = description.media.iter().zip(wishes).enumerate().map(|(index, (media, wish))| {
            let known = session.streams.get(index).and_then(Option::as_ref);
            let proposal = known.and_then(|stream| stream.proposal.as_ref());
            let (Some(_), Some(stream), Some(proposal)) = (wish, known, proposal) else { return Ok(None) };
            if proposal.offerer != offerer || !media.protocol.is_rtp() {
                return Ok(None);
            }
            let result = match proposal.plan {
                Plan::Pass if strict && media.find("crypto").is_none() => Err("it has no key".to_owned()),
                _ => proposal.answered(media, stream.answering(offerer, branch)),
            };
            result.map(Some).map_err(|why| {
                let kind = String::from_utf8_lossy(media.kind);
                let (name, number) = (&answerer.name, index + 1);
                MediaError::Srtp(format!(
                    "the answer from network {name} for stream {number} ({kind}): {why}"
                ))
            })
        });
        legs.collect()
    }

    /// The appliance's own address is the other leg of a call that a server has bridged, if the port is a
    /// media port; any other port of it is a service of this host, to which nobody's media goes.
    fn check_own(&self, remote: Remote) -> Result<(), MediaError> {
        for address in [remote.rtp, remote.rtcp].into_iter().flatten() {
            let is_own =
                |network: &&MediaNetwork| [network.address, network.advertised].contains(&address.ip());
            let mut own = self.settings.networks.iter().filter(is_own).peekable();
            if own.peek().is_some() && !own.any(|network| network.ports.contains(&address.port())) {
                return Err(MediaError::Sdp(format!(
                    "{address} is the appliance itself, and no media port of it"
                )));
            }
        }
        Ok(())
    }

    /// The description for the party on side `to`: our address and our ports on its network.
    pub(super) fn rewrite(
        &self,
        session: &Session,
        description: &Description<'_>,
        wishes: &[Option<Wish>],
        to: Side,
        form: Form,
    ) -> Vec<u8> {
        let mut rewriter = Rewriter::new(description);
        let Ok(network) = self.network(session.network(to)) else { return rewriter.finish() };
        // Streams that are not ours to carry keep the address they came with: if they have none of their
        // own, the session's must stay theirs.
        let foreign =
            description.media.iter().zip(wishes).any(|(media, remote)| {
                remote.is_none() && !media.is_disabled() && media.connection.is_none()
            });
        let own_ice = session.ice.get(usize::from(to == Side::B)).and_then(Option::as_ref);
        rewriter.set_origin_family(network.advertised);
        if !foreign {
            rewriter.set_connection(Target::Session, network.advertised);
        }
        for (index, wish) in wishes.iter().enumerate() {
            let known = session.streams.get(index).and_then(Option::as_ref);
            let proposal = known.and_then(|stream| stream.proposal.as_ref());
            if let (Some(proposal), Some(media)) = (proposal, description.media.get(index))
                && media.protocol.is_rtp()
            {
                match (form, wish) {
                    (Form::Offer, Some(_)) => proposal.write_offer(&mut rewriter, index, media),
                    // A stream that is ended or refused has no proposal of this offer's.
                    (Form::Offer, None) => {}
                    (Form::Answer, _) => proposal.write_answer(&mut rewriter, index, media),
                }
            }
            let (Some(_), Some(stream)) = (wish, known) else { continue };
            let (party, ports) = match (to, stream.branches.last()) {
                (Side::A, Some(branch)) => (&stream.a, branch.ports),
                (Side::B, Some(branch)) => (&branch.party, stream.ports),
                (_, None) => continue,
            };
            if let Some(media) = description.media.get(index) {
                if media.connection.is_some() || foreign {
                    rewriter.set_connection(Target::Media(index), network.advertised);
                }
                // The reader of an answer multiplexes if it has offered to; that of an offer may yet refuse to.
                let is_mux = form == Form::Answer && party.mux && stream.flow_kind == FlowKind::Rtp;
                if media.rtcp.is_some() {
                    let port = if is_mux { ports.rtp() } else { ports.rtcp() };
                    rewriter.set_rtcp(index, port, network.advertised);
                }
                let has_mux = media.find(RTCP_MUX).is_some();
                if is_mux && !has_mux {
                    rewriter.add_attribute(index, format_args!("{RTCP_MUX}"));
                }
                if form == Form::Offer && media.find(RTCP_MUX_ONLY).is_some() {
                    // Whoever cannot multiplex would have to refuse; the appliance multiplexes for it.
                    rewriter.remove_attributes(Target::Media(index), RTCP_MUX_ONLY);
                    if !has_mux {
                        rewriter.add_attribute(index, format_args!("{RTCP_MUX}"));
                    }
                }
            }
            rewriter.set_port(index, ports.rtp());
            if let Some(side) = own_ice
                && let Some(media) = description.media.get(index).filter(|media| media.protocol.is_rtp())
            {
                let is_mux = form == Form::Answer && party.mux || media.find(RTCP_MUX_ONLY).is_some();
                let components = if is_mux { Components::One } else { Components::Two };
                ice::write(&mut rewriter, index, side, network.advertised, ports, components);
            }
        }
        rewriter.ice(Ice::Remove);
        if own_ice.is_some() {
            rewriter.add_session_attribute(format_args!("ice-lite"));
        }
        rewriter.finish()
    }
}
