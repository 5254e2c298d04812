//! A plan of registrations and overlapping calls, carried out by SIPp and the media endpoints.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::media::{Leg, MediaEndpoint};
use super::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, Lab, SERVER, phone};
use super::sipp::{Job, Scenario, Sipp, Tally};

/// Where the appliance takes SIP on both networks.
pub const APPLIANCE_SIP: u16 = 8060;
/// Where phones and server take SIP.
pub const PEER_SIP: u16 = 5060;
/// From where the server calls: its registrar has the other port.
const SERVER_CALLS_FROM: u16 = 5070;
/// The user whose calls the appliance is told to relay in userspace.
pub const USERSPACE_USER: &str = "1099";
/// The user who puts a call on hold.
pub const HOLD_USER: &str = "1098";
/// The first user who calls, and the first who is called.
const FIRST_CALLER: u32 = 1001;
const FIRST_CALLED: u32 = 1051;
/// Of this many calls, one is from the server to a phone.
const ONE_INBOUND_IN: u32 = 5;
/// New calls a second in each group.
const CALL_RATE: u32 = 8;
/// Registrations take milliseconds; calls take their talk and this at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first media ports; each SIPp has a block of its own.
const PHONE_MEDIA: u16 = 20_000;
const SERVER_MEDIA: u16 = 40_000;
const SERVER_CALLS_MEDIA: u16 = 50_000;
const MEDIA_BLOCK: u16 = 4_000;

/// What a call is there to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A phone calls and hangs up.
    Outbound,
    /// The server calls a phone and hangs up.
    Inbound,
    /// A phone calls, holds and resumes.
    Hold,
    /// A phone calls whose media the appliance is told to relay in userspace.
    Userspace,
}

impl Role {
    /// The phones' address in this role.
    #[must_use]
    pub fn phone(self) -> Ipv4Addr {
        phone(match self {
            Self::Outbound => 0,
            Self::Inbound => 1,
            Self::Hold => 2,
            Self::Userspace => 3,
        })
    }

    fn media_base(self) -> u16 {
        let block = self.phone().octets()[3] - phone(0).octets()[3];
        PHONE_MEDIA + u16::from(block) * MEDIA_BLOCK
    }

    fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Hold => "hold",
            Self::Userspace => "userspace",
        }
    }
}

/// Who the phones and the server talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The appliance.
    Appliance,
    /// Each other, through a plain router.
    Router,
}

/// How many calls, how long, through what.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// All calls together. One is put on hold and one forced to userspace, a fifth is inbound.
    pub calls: u32,
    /// Length of the talk.
    pub talk: Duration,
    /// Who is between.
    pub via: Via,
}

impl Plan {
    /// The smallest plan has one call of each role.
    pub const FEWEST_CALLS: u32 = 4;

    /// How many calls each role has.
    #[must_use]
    pub fn roles(&self) -> [(Role, u32); 4] {
        let calls = self.calls.max(Self::FEWEST_CALLS);
        let inbound = (calls / ONE_INBOUND_IN).max(1);
        [
            (Role::Outbound, calls - inbound - 2),
            (Role::Inbound, inbound),
            (Role::Hold, 1),
            (Role::Userspace, 1),
        ]
    }

    fn users(role: Role, calls: u32) -> Vec<String> {
        match role {
            Role::Outbound => (0..calls).map(|index| (FIRST_CALLER + index).to_string()).collect(),
            Role::Inbound => (0..calls).map(|index| (FIRST_CALLED + index).to_string()).collect(),
            Role::Hold => vec![HOLD_USER.to_owned()],
            Role::Userspace => vec![USERSPACE_USER.to_owned()],
        }
    }

    /// Where phones send their requests.
    fn for_phones(&self) -> SocketAddrV4 {
        match self.via {
            Via::Appliance => SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP),
            Via::Router => SocketAddrV4::new(SERVER, PEER_SIP),
        }
    }

    /// Where the server sends requests for phones.
    fn for_server(&self) -> SocketAddrV4 {
        match self.via {
            Via::Appliance => SocketAddrV4::new(APPLIANCE_CENTRE, APPLIANCE_SIP),
            Via::Router => SocketAddrV4::new(Role::Inbound.phone(), PEER_SIP),
        }
    }
}

/// Traffic that has begun. Dropping it stops it.
#[derive(Debug)]
pub struct Traffic {
    plan: Plan,
    server: Sipp,
    calls: Vec<(Role, Sipp)>,
    answering: Option<Sipp>,
    office_media: MediaEndpoint,
    centre_media: MediaEndpoint,
    /// Phones that have registered.
    pub registered: u32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Calls by role.
    pub calls: Vec<(Role, Tally)>,
    /// Phones that registered.
    pub registered: u32,
    /// What the phones sent and heard.
    pub office: Vec<Leg>,
    /// What the server sent and heard.
    pub centre: Vec<Leg>,
    /// What SIPp complained about, if it did.
    pub complaints: Vec<String>,
}

impl Traffic {
    /// Starts the server and registers the phones.
    ///
    /// # Errors
    /// A phone does not get its registration, or not its own Contact back.
    pub fn begin(lab: &Lab, plan: Plan) -> Result<Self> {
        let office_media = MediaEndpoint::start(&lab.office, 1)?;
        let centre_media = MediaEndpoint::start(&lab.centre, 2)?;
        let mut server = Job::new(Scenario::Server, "server", SERVER, PEER_SIP, SERVER_MEDIA)
            .start(&lab.centre, lab.dir())?;
        centre_media.follow(server.orders(), server.media_base())?;
        // SIPp does not say when it listens.
        lab.centre.wait_for_udp(SocketAddrV4::new(SERVER, PEER_SIP), PATIENCE)?;
        server.still_runs()?;
        let mut traffic = Self {
            plan,
            server,
            calls: Vec::new(),
            answering: None,
            office_media,
            centre_media,
            registered: 0,
        };
        for (role, calls) in plan.roles() {
            traffic.register(lab, role, calls)?;
        }
        Ok(traffic)
    }

    fn register(&mut self, lab: &Lab, role: Role, calls: u32) -> Result<()> {
        let name = format!("register-{}", role.name());
        let mut job = Job::new(Scenario::PhoneRegister, &name, role.phone(), PEER_SIP, role.media_base());
        job.destination = Some(self.plan.for_phones());
        job.rows = Plan::users(role, calls)
            .into_iter()
            .map(|user| vec![user.clone(), format!("[authentication username={user} password=lab{user}]")])
            .collect();
        job.calls = Some(calls);
        job.rate = 50;
        job.keys = vec![("contact_port".to_owned(), PEER_SIP.to_string())];
        let mut sipp = job.start(&lab.office, lab.dir())?;
        sipp.succeed(PATIENCE).context("the phones do not register")?;
        for words in sipp.logged("REGISTERED") {
            let [own, returned] = words.as_slice() else { bail!("SIPp logged REGISTERED {words:?}") };
            if own != returned {
                bail!("a phone registered {own} and got {returned} back");
            }
            self.registered += 1;
        }
        Ok(())
    }

    /// Starts the calls.
    ///
    /// # Errors
    /// SIPp cannot be started, or the server knows no binding of a phone that is to be called.
    pub fn call(&mut self, lab: &Lab) -> Result<()> {
        for (role, calls) in self.plan.roles() {
            let users = Plan::users(role, calls);
            if role == Role::Inbound {
                self.call_phones(lab, &users)?;
                continue;
            }
            let scenario = if role == Role::Hold { Scenario::PhoneHold } else { Scenario::PhoneCall };
            let mut job = Job::new(scenario, role.name(), role.phone(), PEER_SIP, role.media_base());
            job.destination = Some(self.plan.for_phones());
            job.rows = users.into_iter().map(|user| vec![user.clone(), format!("9{user}")]).collect();
            job.calls = Some(calls);
            job.rate = CALL_RATE;
            // Three parts of a call that is held: all calls are equally long.
            job.pause = if role == Role::Hold { self.plan.talk / 3 } else { self.plan.talk };
            let sipp = job.start(&lab.office, lab.dir())?;
            self.office_media.follow(sipp.orders(), sipp.media_base())?;
            self.calls.push((role, sipp));
        }
        Ok(())
    }

    fn call_phones(&mut self, lab: &Lab, users: &[String]) -> Result<()> {
        let role = Role::Inbound;
        let calls = Some(u32::try_from(users.len())?);
        let mut answer = Job::new(Scenario::PhoneAnswer, "answer", role.phone(), PEER_SIP, role.media_base());
        answer.calls = calls;
        let answer = answer.start(&lab.office, lab.dir())?;
        self.office_media.follow(answer.orders(), answer.media_base())?;
        self.answering = Some(answer);
        let bindings = self.server.logged("BINDING");
        let mut call =
            Job::new(Scenario::ServerCall, role.name(), SERVER, SERVER_CALLS_FROM, SERVER_CALLS_MEDIA);
        call.destination = Some(self.plan.for_server());
        for user in users {
            let binding = bindings
                .iter()
                .rev()
                .find_map(|words| (words.first() == Some(user)).then(|| words.get(1)).flatten())
                .with_context(|| format!("the server has seen no binding of {user}"))?;
            call.rows.push(vec![format!("9{user}"), binding.clone()]);
        }
        call.calls = calls;
        call.rate = CALL_RATE;
        call.pause = self.plan.talk;
        let call = call.start(&lab.centre, lab.dir())?;
        self.centre_media.follow(call.orders(), call.media_base())?;
        self.calls.push((role, call));
        Ok(())
    }

    /// What the phones have sent and heard so far.
    #[must_use]
    pub fn office_legs(&self) -> Vec<Leg> {
        self.office_media.legs()
    }

    /// Waits for the end of all calls.
    ///
    /// # Errors
    /// The calls do not end, or the run was interrupted. A call that fails is no error here: it is counted.
    pub fn finish(mut self) -> Result<Outcome> {
        let mut calls = Vec::new();
        let mut complaints = Vec::new();
        for (role, sipp) in &mut self.calls {
            let tally = sipp.wait(self.plan.talk + PATIENCE)?;
            if tally.failed > 0 {
                complaints.push(format!("{}: {}", role.name(), sipp.complaints()));
            }
            calls.push((*role, tally));
        }
        if let Some(answering) = &mut self.answering {
            answering.finish()?;
        }
        self.server.finish()?;
        Ok(Outcome {
            calls,
            registered: self.registered,
            office: self.office_media.stop()?,
            centre: self.centre_media.stop()?,
            complaints,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_add_up_to_the_calls() {
        for (calls, expected) in
            [(20, [14, 4, 1, 1]), (4, [1, 1, 1, 1]), (0, [1, 1, 1, 1]), (7, [4, 1, 1, 1])]
        {
            let plan = Plan { calls, talk: Duration::ZERO, via: Via::Router };
            assert_eq!(plan.roles().map(|(_, count)| count), expected, "{calls} calls");
        }
    }
}
