//! Which links want which topic. A plain value: topic in, links out.

use std::cell::Cell;
use std::fmt;

use mycelium_contracts::Delivery;
use shm_transport::frame::Encoding;
use shm_transport::ring::Frame;

/// Number of a link inside one bridge, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A topic that the contracts know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its number, the contract's `tlv_type`.
    pub topic_id: u16,
    /// Name of its message.
    pub message: String,
    /// The legal payload lengths, in bytes.
    pub payload_len: std::ops::RangeInclusive<usize>,
    /// How the payload is written.
    pub encoding: Encoding,
    /// What happens to a frame for a subscriber without room, unless the subscription says something else.
    pub delivery: Delivery,
    /// Where the key lies in the payload; empty if there is none.
    pub key: Vec<KeyPart>,
}

/// Bytes of a payload that belong to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPart {
    /// Bytes from the start of the payload.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

/// One link's subscription to one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    /// The slot of the link.
    pub(crate) slot: usize,
    /// What happens to a frame that finds no room.
    pub(crate) policy: Delivery,
    /// Where the link stages frames of this topic; of no meaning for policies that stage nothing.
    pub(crate) lane: usize,
    /// Where the link counts frames of this topic that it misses; of no meaning for the policy block.
    pub(crate) gap: usize,
    /// Whether the policy is that of the topic, and follows it.
    pub(crate) by_default: bool,
}

/// Links that share the frames of a topic: each goes to one of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    name: String,
    members: Vec<Member>,
    /// Whose turn it is, where the topic has no key.
    turn: Cell<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct Member {
    subscriber: Subscriber,
    /// Told from the link's name, so that a key stays with its member whoever else comes or goes.
    seed: u64,
}

impl Group {
    /// Who of the group gets a frame of `sender`. With a key it is the same member for the same key as long as that member
    /// is there; without one it is the next member that has room.
    pub(crate) fn pick(
        &self,
        key: &[KeyPart],
        frame: &Frame<'_>,
        sender: usize,
        scratch: &mut Vec<u8>,
        mut has_room: impl FnMut(usize) -> bool,
    ) -> Option<Subscriber> {
        let able = |member: &&Member| member.subscriber.slot != sender;
        let members = self.members.iter().filter(able);
        if !key.is_empty() {
            scratch.clear();
            for part in key {
                frame.append_part_to(part.offset, part.len, scratch);
            }
            let hash = fingerprint(scratch);
            // The highest score wins (rendezvous hashing): a member that comes or goes moves its own keys only.
            let best = members.max_by_key(|member| mix(hash ^ member.seed));
            return best.map(|member| member.subscriber);
        }
        let turns = members.clone().count();
        let first = self.turn.get() % turns.max(1);
        let in_turn = || members.clone().cycle().skip(first).take(turns);
        let mut roomy = in_turn().enumerate();
        let found = roomy.find(|(_, member)| has_room(member.subscriber.slot));
        let (skipped, member) = found.or_else(|| in_turn().enumerate().next())?;
        self.turn.set(first + skipped);
        Some(member.subscriber)
    }

    /// The frame went to the member that was picked.
    pub(crate) fn advance(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
    }

    /// The slots of all members.
    pub(crate) fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        self.members.iter().map(|member| member.subscriber.slot)
    }
}

/// A hash of a few bytes (FNV-1a), the same in every run.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Spreads a hash over all its bits (the finaliser of MurmurHash3).
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// What a route says about one frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup<'a> {
    /// Who wants it.
    Wanted(&'a Route),
    /// No message of the contracts has this topic.
    UnknownTopic,
    /// The payload has a length that the contract rules out.
    WrongSize(&'a Topic),
    /// The frame's flags name another encoding than the contract.
    WrongEncoding(&'a Topic),
}

/// Topic id to subscribers, with one table look-up per frame.
pub(crate) struct Routes {
    /// Index into `routes` plus 1; 0 is an unknown topic.
    index: Box<[u16]>,
    routes: Vec<Route>,
}

/// One topic and who wants it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) topic: Topic,
    /// Its place among the topics, from 0.
    pub(crate) number: usize,
    /// Links that want every frame.
    pub(crate) subscribers: Vec<Subscriber>,
    /// Links that share the frames; usually none.
    pub(crate) groups: Vec<Group>,
}

impl Routes {
    pub(crate) fn new(topics: Vec<Topic>) -> Self {
        let mut index = vec![0; usize::from(u16::MAX) + 1].into_boxed_slice();
        for (number, topic) in topics.iter().enumerate() {
            index[usize::from(topic.topic_id)] = number as u16 + 1;
        }
        let routes = topics
            .into_iter()
            .enumerate()
            .map(|(number, topic)| Route {
                topic,
                number,
                subscribers: Vec::new(),
                groups: Vec::new(),
            })
            .collect();
        Self { index, routes }
    }

    #[inline]
    pub(crate) fn lookup(
        &self,
        topic_id: u16,
        encoding: Encoding,
        payload_len: usize,
    ) -> Lookup<'_> {
        let Some(at) = usize::from(self.index[usize::from(topic_id)]).checked_sub(1) else {
            return Lookup::UnknownTopic;
        };
        let route = &self.routes[at];
        if route.topic.encoding != encoding {
            return Lookup::WrongEncoding(&route.topic);
        }
        if !route.topic.payload_len.contains(&payload_len) {
            return Lookup::WrongSize(&route.topic);
        }
        Lookup::Wanted(route)
    }

    /// All topics by their numbers.
    pub(crate) fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.routes.iter().map(|route| &route.topic)
    }

    pub(crate) fn topic(&self, topic_id: u16) -> Option<&Topic> {
        let at = usize::from(self.index[usize::from(topic_id)]).checked_sub(1)?;
        self.routes.get(at).map(|route| &route.topic)
    }

    /// Adds a subscriber; says whether the topic exists. Subscribing again changes how.
    pub(crate) fn subscribe(&mut self, topic_id: u16, subscriber: Subscriber) -> bool {
        let Some(route) = self.route_mut(topic_id) else {
            return false;
        };
        let mut there = route.subscribers.iter_mut();
        match there.find(|other| other.slot == subscriber.slot) {
            Some(other) => *other = subscriber,
            None => {
                route.leave_groups(subscriber.slot);
                route.subscribers.push(subscriber);
            }
        }
        true
    }

    /// Makes a link a member of the group; says whether the topic exists.
    pub(crate) fn join(
        &mut self,
        topic_id: u16,
        subscriber: Subscriber,
        group: &str,
        link_name: &str,
    ) -> bool {
        let Some(route) = self.route_mut(topic_id) else {
            return false;
        };
        route.leave(subscriber.slot);
        let member = Member {
            subscriber,
            seed: mix(fingerprint(link_name.as_bytes())),
        };
        match route.groups.iter_mut().find(|other| other.name == group) {
            Some(there) => there.members.push(member),
            None => route.groups.push(Group {
                name: group.to_owned(),
                members: vec![member],
                turn: Cell::new(0),
            }),
        }
        true
    }

    /// Another policy for a topic; returns the slots of the subscribers that follow it.
    pub(crate) fn set_delivery(&mut self, topic_id: u16, delivery: Delivery) -> Vec<usize> {
        let Some(route) = self.route_mut(topic_id) else {
            return Vec::new();
        };
        route.topic.delivery = delivery;
        let all = route.subscribers_mut();
        all.filter(|it| it.by_default).map(|it| it.slot).collect()
    }

    /// Puts a subscriber in its own place, in or outside of a group.
    pub(crate) fn replace(&mut self, topic_id: u16, subscriber: Subscriber) {
        let route = self.route_mut(topic_id);
        let mut all = route.into_iter().flat_map(Route::subscribers_mut);
        if let Some(there) = all.find(|it| it.slot == subscriber.slot) {
            *there = subscriber;
        }
    }

    pub(crate) fn is_subscribed(&self, topic_id: u16, slot: usize) -> bool {
        let at = usize::from(self.index[usize::from(topic_id)]).checked_sub(1);
        at.is_some_and(|at| self.routes[at].has(slot))
    }

    /// Removes a subscriber; says whether the topic exists.
    pub(crate) fn unsubscribe(&mut self, topic_id: u16, slot: usize) -> bool {
        let Some(route) = self.route_mut(topic_id) else {
            return false;
        };
        route.leave(slot);
        true
    }

    pub(crate) fn unsubscribe_all(&mut self, slot: usize) {
        for route in &mut self.routes {
            route.leave(slot);
        }
    }

    fn route_mut(&mut self, topic_id: u16) -> Option<&mut Route> {
        let at = usize::from(self.index[usize::from(topic_id)]).checked_sub(1)?;
        self.routes.get_mut(at)
    }
}

impl Route {
    fn subscribers_mut(&mut self) -> impl Iterator<Item = &mut Subscriber> {
        let groups = self.groups.iter_mut();
        let members = groups.flat_map(|group| group.members.iter_mut());
        let members = members.map(|member| &mut member.subscriber);
        self.subscribers.iter_mut().chain(members)
    }

    fn has(&self, slot: usize) -> bool {
        let mut members = self.groups.iter().flat_map(Group::slots);
        self.subscribers.iter().any(|it| it.slot == slot) || members.any(|it| it == slot)
    }

    fn leave(&mut self, slot: usize) {
        self.subscribers.retain(|other| other.slot != slot);
        self.leave_groups(slot);
    }

    fn leave_groups(&mut self, slot: usize) {
        for group in &mut self.groups {
            group.members.retain(|other| other.subscriber.slot != slot);
        }
        self.groups.retain(|group| !group.members.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(topic_id: u16, len: usize) -> Topic {
        Topic {
            topic_id,
            message: format!("M{topic_id}"),
            payload_len: len..=len,
            encoding: Encoding::Contract,
            delivery: Delivery::Block,
            key: vec![KeyPart { offset: 0, len: 8 }],
        }
    }

    fn at(slot: usize) -> Subscriber {
        Subscriber {
            slot,
            policy: Delivery::Block,
            lane: 0,
            gap: 0,
            by_default: true,
        }
    }

    fn wanted(routes: &Routes, topic_id: u16, len: usize) -> Vec<usize> {
        match routes.lookup(topic_id, Encoding::Contract, len) {
            Lookup::Wanted(route) => route.subscribers.iter().map(|it| it.slot).collect(),
            other => panic!("known topic and size, got {other:?}"),
        }
    }

    /// The slots that the frames of the keys 0..count go to.
    fn shares(routes: &Routes, topic_id: u16, sender: usize, count: u64) -> Vec<usize> {
        let Lookup::Wanted(route) = routes.lookup(topic_id, Encoding::Contract, 8) else {
            panic!("known topic and size");
        };
        let mut scratch = Vec::new();
        let mut pick = |key: u64| {
            let payload = key.to_le_bytes();
            let frame = Frame::new(topic_id, &payload);
            let group = &route.groups[0];
            let picked = group.pick(&route.topic.key, &frame, sender, &mut scratch, |_| true);
            group.advance();
            picked.expect("members").slot
        };
        (0..count).map(&mut pick).collect()
    }

    #[test]
    fn a_frame_goes_to_every_subscriber_of_its_topic_and_to_nobody_else() {
        let mut routes = Routes::new(vec![topic(1001, 64), topic(1002, 8)]);
        for slot in [3, 5, 3] {
            assert!(routes.subscribe(1001, at(slot)));
        }
        assert_eq!(wanted(&routes, 1001, 64), [3, 5]);
        assert!(wanted(&routes, 1002, 8).is_empty());
        assert!(routes.unsubscribe(1001, 3));
        assert_eq!(wanted(&routes, 1001, 64), [5]);
        routes.unsubscribe_all(5);
        assert!(wanted(&routes, 1001, 64).is_empty());
    }

    #[test]
    fn unknown_topics_and_wrong_sizes_are_told_apart() {
        let mut routes = Routes::new(vec![topic(1001, 64)]);
        assert_eq!(
            routes.lookup(1002, Encoding::Contract, 64),
            Lookup::UnknownTopic
        );
        assert!(!routes.subscribe(1002, at(0)) && !routes.unsubscribe(1002, 0));
        assert!(!routes.join(1002, at(0), "group", "worker"));
        assert!(
            matches!(routes.lookup(1001, Encoding::Contract, 63), Lookup::WrongSize(topic) if topic.message == "M1001")
        );
    }

    #[test]
    fn a_frame_of_another_encoding_than_its_contract_is_told_apart() {
        let mut json = topic(1001, 64);
        json.encoding = Encoding::Json;
        let mut routes = Routes::new(vec![json]);
        assert!(routes.subscribe(1001, at(3)));
        assert!(matches!(
            routes.lookup(1001, Encoding::Json, 64),
            Lookup::Wanted(_)
        ));
        for encoding in [Encoding::Contract, Encoding::MsgPack, Encoding::Raw] {
            let found = routes.lookup(1001, encoding, 64);
            assert!(
                matches!(found, Lookup::WrongEncoding(topic) if topic.message == "M1001"),
                "{encoding:?}"
            );
        }
    }

    #[test]
    fn a_key_stays_with_its_member_whoever_else_comes_or_goes() {
        let mut routes = Routes::new(vec![topic(1001, 8)]);
        for (slot, name) in [(1, "a"), (2, "b"), (3, "c")] {
            assert!(routes.join(1001, at(slot), "group", name));
        }
        let before = shares(&routes, 1001, 9, 300);
        for slot in [1, 2, 3] {
            let share = before.iter().filter(|&&it| it == slot).count();
            assert!(share > 50, "slot={slot} share={share} of 300");
        }
        assert_eq!(shares(&routes, 1001, 9, 300), before, "the same every time");
        assert!(routes.unsubscribe(1001, 2));
        let without = shares(&routes, 1001, 9, 300);
        for (key, (&old, &new)) in before.iter().zip(&without).enumerate() {
            assert!(
                old == new || old == 2,
                "key={key} moved from {old} to {new}"
            );
        }
        // A member that comes back gets its own keys again, and what publishes itself never gets its own.
        assert!(routes.join(1001, at(2), "group", "b"));
        assert_eq!(shares(&routes, 1001, 9, 300), before);
        assert!(!shares(&routes, 1001, 2, 300).contains(&2));
    }

    #[test]
    fn without_a_key_members_take_turns_and_the_full_one_is_passed_over() {
        let mut keyless = topic(1001, 8);
        keyless.key.clear();
        let mut routes = Routes::new(vec![keyless]);
        for (slot, name) in [(1, "a"), (2, "b"), (3, "c")] {
            assert!(routes.join(1001, at(slot), "group", name));
        }
        assert_eq!(shares(&routes, 1001, 9, 6), [1, 2, 3, 1, 2, 3]);
        let Lookup::Wanted(route) = routes.lookup(1001, Encoding::Contract, 8) else {
            panic!("known topic and size");
        };
        let (frame, mut scratch) = (Frame::new(1001, &[0; 8]), Vec::new());
        let mut pick = |full: usize| {
            let group = &route.groups[0];
            let picked = group.pick(&[], &frame, 9, &mut scratch, |slot| slot != full);
            group.advance();
            picked.expect("members").slot
        };
        assert_eq!([pick(1), pick(1), pick(1), pick(1)], [2, 3, 2, 3]);
    }

    #[test]
    fn who_subscribes_alone_leaves_the_group_and_the_other_way_round() {
        let mut routes = Routes::new(vec![topic(1001, 8)]);
        assert!(routes.join(1001, at(1), "group", "a") && routes.join(1001, at(2), "group", "b"));
        assert!(routes.subscribe(1001, at(1)));
        assert_eq!(wanted(&routes, 1001, 8), [1]);
        assert_eq!(shares(&routes, 1001, 9, 3), [2, 2, 2]);
        assert!(routes.join(1001, at(1), "group", "a"));
        assert!(wanted(&routes, 1001, 8).is_empty());
        assert!(routes.is_subscribed(1001, 1));
    }
}
