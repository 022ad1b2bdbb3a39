//! What is said about delivery: `[delivery]`, `subscribe`, stages and the quarantine.

use super::*;

fn worker(lines: &str) -> String {
    with_bridge(&format!(
        "[[worker]]\nname = 'a'\ncommand = ['sh']\n{lines}\n"
    ))
}

#[test]
fn subscriptions_are_names_or_tables() {
    let directory = directory();
    let text = worker(
        "subscribe = ['Signal', { topic = 'Quote', delivery = 'conflate', group = 'pricing' }]\n\
         stage_capacity = '4MiB'\nquarantine_after = 5",
    ) + "[delivery]\nSignal = 'drop_oldest'\n";
    let config = load(&directory, &text).unwrap_or_else(|error| panic!("{error}"));
    let worker = &config.workers[0];
    let plain = Subscription {
        message: "Signal".into(),
        delivery: None,
        group: None,
    };
    let shared = Subscription {
        message: "Quote".into(),
        delivery: Some(Delivery::Conflate),
        group: Some("pricing".into()),
    };
    assert_eq!(worker.subscribe, [plain, shared]);
    assert_eq!(
        (worker.stage_capacity, worker.quarantine_after),
        (4 << 20, 5)
    );
    let signal = config.delivery.get("Signal");
    assert_eq!(
        (config.delivery.len(), signal),
        (1, Some(&Delivery::DropOldest))
    );
}

#[test]
fn a_stage_is_as_long_as_the_ring_unless_the_file_says_more() {
    let directory = directory();
    let config = load(&directory, &worker("ring_capacity = '64KiB'"));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.workers[0].stage_capacity, 64 << 10);
    assert_eq!(config.workers[0].quarantine_after, 3);
    assert_eq!(config.bridge.stage_capacity, None);
    assert_eq!(
        problems(&worker("ring_capacity = '64KiB'\nstage_capacity = '32KiB'")),
        [
            "6: worker 'a': stage_capacity is below ring_capacity: value=32768, min=65536 | raise stage_capacity or \
             lower ring_capacity"
        ]
    );
}

#[test]
fn what_cannot_be_subscribed_so_is_told_with_its_place() {
    let text = worker(
        "subscribe = [{ topic = 'Signal', delivery = 'conflate' }, { topic = 'Qoute' }, { delivery = 'block' }, 7, \
         { topic = 'Quote', delivery = 'drop', group = '', colour = 1 }]",
    );
    let found = problems(&text);
    let expected = [
        "subscribe has an entry of the wrong type: expected=a string or a table, actual=integer",
        "subscribe: missing key 'topic'",
        "subscribe: delivery is not known: value='drop', legal=block | drop_newest | drop_oldest | conflate",
        "subscribe: unknown key 'colour'",
        "subscribe: group is not legal: length=0 bytes, legal=1..=64",
        "subscribe: 'Signal' cannot be conflated: it has no key in a fixed layout",
        "subscribe: unknown message: value='Qoute' | did you mean 'Quote'?",
    ];
    for part in expected {
        let all = found.iter().filter(|problem| problem.contains(part));
        assert_eq!(all.count(), 1, "{part}\n{found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn policies_of_the_bridge_are_compared_with_the_contracts() {
    let text = with_bridge("[delivery]\nQuote = 'lossy'\nSignal = 'conflate'\nQuotes = 'block'\n");
    let found = problems(&text);
    let expected = [
        "[delivery]: policy of Quote is not known: value='lossy', legal=block | drop_newest | drop_oldest | conflate",
        "[delivery]: 'Signal' cannot be conflated: it has no key in a fixed layout",
        "[delivery]: unknown message: value='Quotes' | did you mean 'Quote'?",
    ];
    for part in expected {
        assert!(
            found.iter().any(|problem| problem.contains(part)),
            "{part}\n{found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}
