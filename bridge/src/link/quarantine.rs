//! Finds the record that keeps killing a worker, and has it moved aside.
//!
//! A peer acknowledges late, so the first unacknowledged record of a dead worker need not be the one that it died over.
//! When the same position comes up again and again, what is unacknowledged is taken back and given to the next process one
//! record after the other: then the one that is not acknowledged is the one that it had in hand.

use std::sync::{Arc, Mutex, PoisonError};

use mycelium_contracts::hex;

use super::registry::Shared;
use crate::config::WorkerConfig;
use crate::quarantine::{Entry, Store};
use crate::router::{InHand, Progress};
use crate::routes::LinkId;

/// How the last process of a worker ended.
#[derive(Debug, Clone)]
pub(super) struct LastExit {
    pub(super) clean: bool,
    pub(super) attached: bool,
    /// In words.
    pub(super) status: String,
}

/// What a worker may be dying over.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    suspect: Option<Suspect>,
    /// Deaths in a row over it.
    kills: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspect {
    /// Something shortly behind this position of the ring.
    Behind(u64),
    /// The record with this number, of those that are given out one at a time.
    Record(u64),
}

/// What is to be done before the next process starts.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Nothing,
    /// Give out one record at a time from here on.
    TakeCare,
    /// Move this record aside: it has killed so many processes.
    SetAside(Box<InHand>, u32),
}

impl Suspicion {
    /// Takes down a death that left `progress` behind. `after` deaths in a row over one record are enough; one run with one
    /// record at a time is needed to tell which it is, so it takes two at least.
    fn judge(&mut self, progress: Progress, after: u32) -> Judgement {
        if !progress.unacknowledged {
            *self = Self::default();
            return Judgement::Nothing;
        }
        let suspect = match &progress.in_hand {
            Some(in_hand) => Suspect::Record(in_hand.number),
            None => Suspect::Behind(progress.position),
        };
        let same = match (self.suspect, &progress.in_hand) {
            // A process may have handled so much without having acknowledged it.
            (Some(Suspect::Behind(_)), Some(in_hand)) => in_hand.offset <= progress.lag_max,
            (earlier, _) => earlier == Some(suspect),
        };
        self.kills = if same { self.kills + 1 } else { 1 };
        self.suspect = Some(suspect);
        match progress.in_hand {
            Some(in_hand) if self.kills >= after => {
                let kills = std::mem::take(self).kills;
                Judgement::SetAside(Box::new(in_hand), kills)
            }
            None if self.kills + 1 >= after => Judgement::TakeCare,
            _ => Judgement::Nothing,
        }
    }
}

/// Looks at what the last process of a worker left, before the next gets it. The rings have no peer meanwhile.
pub(super) async fn examine(
    shared: &Shared,
    link: LinkId,
    config: &WorkerConfig,
    suspicion: &Arc<Mutex<Suspicion>>,
    exit: &LastExit,
) {
    if config.quarantine_after == 0 || !exit.attached {
        return;
    }
    // Every critical section leaves the value whole.
    let lock = || suspicion.lock().unwrap_or_else(PoisonError::into_inner);
    if exit.clean {
        *lock() = Suspicion::default();
        return;
    }
    let Ok(Some(Ok(progress))) = shared.plane.progress(link).await else {
        // Without a sound ring there is no record to look for, and the link is renewed.
        return;
    };
    let judgement = lock().judge(progress, config.quarantine_after);
    let name = &config.name;
    match judgement {
        Judgement::Nothing => {}
        Judgement::TakeCare => match shared.plane.recall(link).await {
            Ok(Ok(())) => {
                tracing::warn!(worker = %name, "worker keeps dying over the same records; the next process gets them one at a time");
            }
            Ok(Err(corrupt)) => {
                tracing::error!(worker = %name, %corrupt, "unacknowledged records cannot be taken back");
            }
            Err(stopped) => tracing::debug!(worker = %name, %stopped, "records are not looked at"),
        },
        Judgement::SetAside(in_hand, kills) => {
            set_aside(shared, link, config, *in_hand, kills, &exit.status).await;
        }
    }
}

/// Keeps the record in a file and drops it from the link, in this order.
async fn set_aside(
    shared: &Shared,
    link: LinkId,
    config: &WorkerConfig,
    in_hand: InHand,
    kills: u32,
    status: &str,
) {
    let InHand { number, frame, .. } = in_hand;
    let topic_id = frame.header.topic_id;
    let message = shared.contracts.by_id(topic_id);
    let entry = Entry {
        id: 0,
        time_ms: 0,
        worker: config.name.clone(),
        topic_id,
        message: message.map_or_else(String::new, |message| message.name.clone()),
        encoding: frame.header.encoding().name().to_owned(),
        layout_digest: message.map_or_else(String::new, |message| hex(&message.layout_digest)),
        kills,
        status: status.to_owned(),
        payload: hex(&frame.payload),
    };
    let store = Store::at(&shared.bridge().state_dir);
    let file = store.path().display().to_string();
    let (name, message) = (&config.name, entry.message.clone());
    let kept = tokio::task::spawn_blocking(move || store.append(entry)).await;
    let id = match kept {
        Ok(Ok(id)) => id,
        Ok(Err(error)) => {
            tracing::error!(worker = %name, topic = topic_id, name = %message, kills, %error, "record kills its worker and cannot be kept elsewhere, so it stays where it is");
            return;
        }
        Err(error) => {
            tracing::error!(worker = %name, %error, "keeping a record was interrupted");
            return;
        }
    };
    match shared.plane.set_aside(link, number).await {
        Ok(Ok(true)) => {
            tracing::error!(worker = %name, topic = topic_id, name = %message, kills, status, id, file, "record killed its worker again and again and is moved aside; see mycelium-bridge quarantine show");
        }
        Ok(Ok(false)) => {
            tracing::warn!(worker = %name, topic = topic_id, id, file, "record is kept aside, but was handled meanwhile");
        }
        Ok(Err(corrupt)) => {
            tracing::error!(worker = %name, topic = topic_id, id, %corrupt, "record is kept aside, but cannot be taken off the ring");
        }
        Err(stopped) => tracing::debug!(worker = %name, %stopped, "record stays where it is"),
    }
}

#[cfg(test)]
mod tests {
    use shm_transport::frame::FrameHeader;

    use super::*;
    use crate::router::KeptFrame;

    fn behind(position: u64) -> Progress {
        Progress {
            position,
            unacknowledged: true,
            in_hand: None,
            lag_max: 512,
        }
    }

    fn in_hand(number: u64, offset: u64) -> Progress {
        let frame = KeptFrame {
            header: FrameHeader::new(1001, 0),
            payload: Vec::new(),
        };
        let in_hand = InHand {
            number,
            offset,
            frame,
        };
        Progress {
            in_hand: Some(in_hand),
            ..behind(80)
        }
    }

    fn is_set_aside(judgement: &Judgement, number: u64, kills: u32) -> bool {
        matches!(judgement, Judgement::SetAside(it, count) if it.number == number && *count == kills)
    }

    #[test]
    fn the_third_death_over_a_record_moves_it_aside() {
        let mut suspicion = Suspicion::default();
        assert_eq!(suspicion.judge(behind(80), 3), Judgement::Nothing);
        assert_eq!(suspicion.judge(behind(80), 3), Judgement::TakeCare);
        let judged = suspicion.judge(in_hand(4, 96), 3);
        assert!(is_set_aside(&judged, 4, 3), "{judged:?}");
        // What follows is counted anew.
        assert_eq!(suspicion.judge(behind(400), 3), Judgement::Nothing);
    }

    #[test]
    fn deaths_over_different_records_are_not_added_up() {
        let mut suspicion = Suspicion::default();
        for position in [80, 160, 240, 320] {
            assert_eq!(suspicion.judge(behind(position), 3), Judgement::Nothing);
        }
        assert_eq!(suspicion.judge(behind(320), 3), Judgement::TakeCare);
        // Too far behind for the one that it began with.
        assert_eq!(suspicion.judge(in_hand(9, 600), 3), Judgement::Nothing);
        assert_eq!(suspicion.judge(in_hand(9, 600), 3), Judgement::Nothing);
        assert_eq!(suspicion.judge(in_hand(10, 700), 3), Judgement::Nothing);
        assert_eq!(suspicion.judge(in_hand(10, 700), 3), Judgement::Nothing);
        assert!(is_set_aside(&suspicion.judge(in_hand(10, 700), 3), 10, 3));
    }

    #[test]
    fn a_worker_that_has_handled_everything_is_not_suspected() {
        let mut suspicion = Suspicion::default();
        assert_eq!(suspicion.judge(behind(80), 3), Judgement::Nothing);
        let done = Progress {
            unacknowledged: false,
            ..behind(80)
        };
        assert_eq!(suspicion.judge(done, 3), Judgement::Nothing);
        assert_eq!(suspicion.judge(behind(80), 3), Judgement::Nothing);
    }

    #[test]
    fn one_death_is_enough_if_it_is_to_be_but_it_takes_a_second_to_know_the_record() {
        let mut suspicion = Suspicion::default();
        assert_eq!(suspicion.judge(behind(80), 1), Judgement::TakeCare);
        assert!(is_set_aside(&suspicion.judge(in_hand(1, 0), 1), 1, 2));
    }
}
