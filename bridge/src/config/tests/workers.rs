//! Keys of a worker that concern its process and its watch.

use super::*;

#[test]
fn keys_of_the_process_and_of_the_watch_are_read() {
    let directory = directory();
    let text = with_bridge(
        "[[worker]]\nname = 'a'\ncommand = ['sh']\n\
         [[worker]]\nname = 'b'\ncommand = ['sh']\nafter = ['a']\nready = 'subscribed'\nattach_timeout_ms = 5000\n\
         stall_timeout_ms = 700\nnice = -3\nlimits = { memory = '1GiB', open_files = 64, core = 0 }\n",
    );
    let config = load(&directory, &text).unwrap();
    let (a, b) = (&config.workers[0], &config.workers[1]);
    assert_eq!(a.process, ProcessConfig::default());
    assert_eq!(a.watch, WatchConfig::default());
    assert_eq!(b.process.nice, Some(-3));
    let limits = [
        (Limit::OpenFiles, 64),
        (Limit::Core, 0),
        (Limit::Memory, 1 << 30),
    ];
    assert_eq!(b.process.limits, limits);
    let watch = WatchConfig {
        after: vec!["a".into()],
        ready: Readiness::Subscribed,
        attach_timeout: Duration::from_secs(5),
        stall_timeout: Some(Duration::from_millis(700)),
    };
    assert_eq!(b.watch, watch);
}

#[test]
fn mistakes_in_keys_of_the_process_are_reported_with_their_line() {
    let text = with_bridge(
        "[[worker]]\nname = 'w'\ncommand = ['sh']\nnice = 20\ncpus = []\nlimits = { memory = 'lots', cpu_s = 0, cores = 1 }\n\
         env = { MYCELIUM_TREE = 'x' }\nstall_timeout_ms = 0\n",
    );
    let problems = problems(&text).join("\n");
    for expected in [
        "6: worker 'w': nice is out of range: value=20, legal=-20..=19",
        "7: worker 'w': cpus is empty | name at least one processor",
        "8: worker 'w': limits: memory is not a size | write bytes or a size",
        "8: worker 'w': limits: cpu_s is out of range: value=0, legal=1..=1073741824",
        "8: worker 'w': limits: unknown key 'cores' | did you mean 'core'?",
        "9: worker 'w': env sets MYCELIUM_TREE, which the bridge sets itself",
        "10: worker 'w': stall_timeout_ms is out of range: value=0",
    ] {
        assert!(problems.contains(expected), "{expected}\n{problems}");
    }
}

#[test]
fn an_order_that_does_not_exist_is_reported_with_its_cycle() {
    let worker = |name: &str, after: &str| {
        format!("[[worker]]\nname = '{name}'\ncommand = ['sh']\nafter = [{after}]\n")
    };
    let text = with_bridge(
        &(worker("a", "'b'")
            + &worker("b", "'c'")
            + &worker("c", "'a', 'bb'")
            + &worker("d", "'d', 'a'")),
    );
    let problems = problems(&text);
    assert_eq!(
        problems,
        [
            "6: after asks for an order that does not exist: a -> b -> c -> a | remove one of these from the after of the one before it",
            "14: after names no worker: value='bb' | did you mean 'b'?",
            "18: after asks for an order that does not exist: d -> d | remove one of these from the after of the one before it",
        ]
    );
}
