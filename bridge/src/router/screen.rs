//! Topics that a link must not publish, because the layouts of its peer and the bridge differ.
//!
//! The ring of a worker goes on from one process to the next, so a verdict on one process must not touch what another
//! has published: each holds from a position of the ring on.

use std::collections::VecDeque;

/// What a peer must not publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Nothing yet: the contracts of the peer differ and are not compared so far.
    Everything,
    /// These topics. Usually none.
    Topics(Vec<u16>),
}

impl Refused {
    pub(crate) fn contains(&self, topic_id: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Topics(topics) => topics.contains(&topic_id),
        }
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Topics(topics) if topics.is_empty())
    }
}

/// The verdicts on the peers of one link, each with the position from which on it holds, oldest first. Empty for a link
/// that may publish everything, so that the usual frame costs one look.
#[derive(Debug, Default)]
pub(super) struct Screen {
    verdicts: VecDeque<(u64, Refused)>,
}

impl Screen {
    /// Sets the verdict on what is published from `since` on.
    pub(super) fn set(&mut self, since: u64, refused: Refused) {
        // A peer that published nothing, or one whose contracts have been compared by now, leaves no verdict behind.
        while self.verdicts.back().is_some_and(|(at, _)| *at >= since) {
            self.verdicts.pop_back();
        }
        if !(self.verdicts.is_empty() && refused.is_nothing()) {
            self.verdicts.push_back((since, refused));
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.verdicts.is_empty()
    }

    /// Whether a frame at `position` is to be dropped. Positions are asked for in rising order.
    #[inline]
    pub(super) fn refuses(&mut self, position: u64, topic_id: u16) -> bool {
        !self.verdicts.is_empty() && self.look(position, topic_id)
    }

    #[cold]
    fn look(&mut self, position: u64, topic_id: u16) -> bool {
        while self.verdicts.get(1).is_some_and(|(at, _)| *at <= position) {
            self.verdicts.pop_front();
        }
        let refused = match self.verdicts.front() {
            Some((at, refused)) if *at <= position => refused,
            _ => return false,
        };
        let drop = refused.contains(topic_id);
        if refused.is_nothing() && self.verdicts.len() == 1 {
            self.verdicts.clear();
        }
        drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(topics: &[u16]) -> Refused {
        Refused::Topics(topics.to_vec())
    }

    #[test]
    fn a_verdict_holds_from_its_position_until_that_of_the_next() {
        let mut screen = Screen::default();
        screen.set(80, topics(&[1001]));
        screen.set(160, topics(&[1002]));
        screen.set(240, topics(&[]));
        let asked = [
            (0, 1001, false),
            (80, 1001, true),
            (88, 1002, false),
            (152, 1001, true),
            (160, 1001, false),
            (168, 1002, true),
            (240, 1002, false),
            (248, 1001, false),
        ];
        for (position, topic_id, dropped) in asked {
            assert_eq!(
                screen.refuses(position, topic_id),
                dropped,
                "position={position} topic_id={topic_id}"
            );
        }
        assert!(
            screen.verdicts.is_empty(),
            "a peer that may publish everything costs no look-up"
        );
    }

    #[test]
    fn a_later_verdict_on_the_same_peer_replaces_the_earlier() {
        let mut screen = Screen::default();
        screen.set(80, Refused::Everything);
        assert!(screen.refuses(80, 1001) && screen.refuses(88, 1002));
        screen.set(80, topics(&[1002]));
        assert!(!screen.refuses(96, 1001) && screen.refuses(104, 1002));
        screen.set(80, topics(&[]));
        assert!(!screen.refuses(112, 1002));
        assert!(screen.verdicts.is_empty());
    }

    #[test]
    fn peers_that_published_nothing_leave_nothing_behind() {
        let mut screen = Screen::default();
        for _ in 0..1000 {
            screen.set(80, topics(&[1001]));
            screen.set(80, topics(&[]));
        }
        assert!(screen.verdicts.is_empty());
        screen.set(80, topics(&[1001]));
        screen.set(160, topics(&[1001]));
        assert_eq!(screen.verdicts.len(), 2);
    }
}
