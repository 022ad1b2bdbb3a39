//! Which links want which topic. A plain value: topic in, links out.

use std::fmt;

use shm_transport::frame::Encoding;

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
}

/// What a route says about one frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup<'a> {
    /// The slots of the links that want it.
    Subscribers(&'a [usize]),
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

struct Route {
    topic: Topic,
    subscribers: Vec<usize>,
}

impl Routes {
    pub(crate) fn new(topics: Vec<Topic>) -> Self {
        let mut index = vec![0; usize::from(u16::MAX) + 1].into_boxed_slice();
        for (number, topic) in topics.iter().enumerate() {
            index[usize::from(topic.topic_id)] = number as u16 + 1;
        }
        let routes = topics
            .into_iter()
            .map(|topic| Route {
                topic,
                subscribers: Vec::new(),
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
        Lookup::Subscribers(&route.subscribers)
    }

    /// Adds a subscriber; says whether the topic exists. Subscribing twice is subscribing once.
    pub(crate) fn subscribe(&mut self, topic_id: u16, slot: usize) -> bool {
        let Some(route) = self.route_mut(topic_id) else {
            return false;
        };
        if !route.subscribers.contains(&slot) {
            route.subscribers.push(slot);
        }
        true
    }

    pub(crate) fn is_subscribed(&self, topic_id: u16, slot: usize) -> bool {
        let at = usize::from(self.index[usize::from(topic_id)]).checked_sub(1);
        at.is_some_and(|at| self.routes[at].subscribers.contains(&slot))
    }

    /// Removes a subscriber; says whether the topic exists.
    pub(crate) fn unsubscribe(&mut self, topic_id: u16, slot: usize) -> bool {
        let Some(route) = self.route_mut(topic_id) else {
            return false;
        };
        route.subscribers.retain(|&other| other != slot);
        true
    }

    pub(crate) fn unsubscribe_all(&mut self, slot: usize) {
        for route in &mut self.routes {
            route.subscribers.retain(|&other| other != slot);
        }
    }

    fn route_mut(&mut self, topic_id: u16) -> Option<&mut Route> {
        let at = usize::from(self.index[usize::from(topic_id)]).checked_sub(1)?;
        self.routes.get_mut(at)
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
        }
    }

    #[test]
    fn a_frame_goes_to_every_subscriber_of_its_topic_and_to_nobody_else() {
        let mut routes = Routes::new(vec![topic(1001, 64), topic(1002, 8)]);
        assert!(
            routes.subscribe(1001, 3) && routes.subscribe(1001, 5) && routes.subscribe(1001, 3)
        );
        assert_eq!(
            routes.lookup(1001, Encoding::Contract, 64),
            Lookup::Subscribers(&[3, 5])
        );
        assert_eq!(
            routes.lookup(1002, Encoding::Contract, 8),
            Lookup::Subscribers(&[])
        );
        assert!(routes.unsubscribe(1001, 3));
        assert_eq!(
            routes.lookup(1001, Encoding::Contract, 64),
            Lookup::Subscribers(&[5])
        );
        routes.unsubscribe_all(5);
        assert_eq!(
            routes.lookup(1001, Encoding::Contract, 64),
            Lookup::Subscribers(&[])
        );
    }

    #[test]
    fn unknown_topics_and_wrong_sizes_are_told_apart() {
        let mut routes = Routes::new(vec![topic(1001, 64)]);
        assert_eq!(
            routes.lookup(1002, Encoding::Contract, 64),
            Lookup::UnknownTopic
        );
        assert!(!routes.subscribe(1002, 0) && !routes.unsubscribe(1002, 0));
        assert!(
            matches!(routes.lookup(1001, Encoding::Contract, 63), Lookup::WrongSize(topic) if topic.message == "M1001")
        );
    }

    #[test]
    fn a_frame_of_another_encoding_than_its_contract_is_told_apart() {
        let mut json = topic(1001, 64);
        json.encoding = Encoding::Json;
        let mut routes = Routes::new(vec![json]);
        assert!(routes.subscribe(1001, 3));
        assert_eq!(
            routes.lookup(1001, Encoding::Json, 64),
            Lookup::Subscribers(&[3])
        );
        for encoding in [Encoding::Contract, Encoding::MsgPack, Encoding::Raw] {
            let found = routes.lookup(1001, encoding, 64);
            assert!(
                matches!(found, Lookup::WrongEncoding(topic) if topic.message == "M1001"),
                "{encoding:?}"
            );
        }
    }
}
