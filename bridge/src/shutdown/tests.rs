use super::*;

const DRAIN: Duration = Duration::from_secs(2);

fn left(workers: usize, clients: usize) -> Remaining {
    Remaining { workers, clients }
}

fn requested(remaining: Remaining, now: Instant) -> Shutdown {
    let mut shutdown = Shutdown::new(DRAIN);
    let steps = shutdown.request("SIGTERM", remaining, now);
    assert_eq!(
        steps,
        [Step::StopAccepting, Step::AskToEnd { deadline: DRAIN }]
    );
    shutdown
}

#[test]
fn a_bridge_without_peers_stops_at_once() {
    let now = Instant::now();
    let mut shutdown = Shutdown::new(DRAIN);
    assert!(!shutdown.has_begun());
    let steps = shutdown.request("SIGINT", left(0, 0), now);
    assert_eq!(
        steps,
        [
            Step::StopAccepting,
            Step::AskToEnd { deadline: DRAIN },
            Step::Finish
        ]
    );
    assert_eq!(shutdown.summary().exit_code(), 0);
    assert_eq!(shutdown.deadline(), None);
}

#[test]
fn peers_that_end_in_time_are_drained_and_the_code_is_0() {
    let now = Instant::now();
    let mut shutdown = requested(left(2, 1), now);
    assert_eq!(shutdown.advance(left(1, 1), now), []);
    assert_eq!(shutdown.advance(left(0, 1), now), []);
    assert_eq!(
        shutdown.advance(left(0, 0), now + Duration::from_millis(30)),
        [Step::Finish]
    );
    let summary = shutdown.summary();
    assert_eq!(
        (summary.workers, summary.drained, summary.exit_code()),
        (2, 2, 0)
    );
    assert!(
        summary
            .to_string()
            .contains("workers=2, drained=2, terminated=0, killed=0"),
        "{summary}"
    );
    assert!(summary.to_string().contains("duration_ms=30"), "{summary}");
}

#[test]
fn deadlines_escalate_from_sigterm_to_sigkill_and_the_code_is_1() {
    let mut now = Instant::now();
    let mut shutdown = requested(left(3, 0), now);
    assert_eq!(
        shutdown.advance(left(2, 0), now),
        [],
        "the deadline is not over"
    );
    now += DRAIN;
    assert_eq!(shutdown.advance(left(2, 0), now), [Step::Terminate]);
    now += TERMINATE_GRACE;
    assert_eq!(shutdown.deadline(), Some(now));
    assert_eq!(shutdown.advance(left(1, 0), now), [Step::Kill]);
    assert_eq!(shutdown.advance(left(0, 0), now), [Step::Finish]);
    let summary = shutdown.summary();
    assert_eq!(
        (
            summary.drained,
            summary.terminated,
            summary.killed,
            summary.workers_left
        ),
        (1, 1, 1, 0)
    );
    assert_eq!(summary.exit_code(), 1);
}

#[test]
fn each_further_request_hurries_by_one_phase() {
    let now = Instant::now();
    let mut shutdown = requested(left(1, 0), now);
    let same = now + SAME_REQUEST - Duration::from_millis(1);
    assert_eq!(shutdown.request("SIGTERM", left(1, 0), same), []);
    let now = now + SAME_REQUEST;
    assert_eq!(
        shutdown.request("SIGINT", left(1, 0), now),
        [Step::Terminate]
    );
    assert_eq!(shutdown.request("SIGINT", left(1, 0), now), [Step::Kill]);
    assert_eq!(shutdown.request("SIGINT", left(1, 0), now), [Step::Finish]);
    assert_eq!(shutdown.request("SIGINT", left(1, 0), now), []);
    assert_eq!(
        shutdown.summary().reason,
        "SIGTERM",
        "the first reason stays"
    );
    assert_eq!(shutdown.summary().workers_left, 1);
}

#[test]
fn clients_are_waited_for_but_only_cut_off() {
    let now = Instant::now();
    let mut shutdown = requested(left(0, 2), now);
    assert_eq!(shutdown.advance(left(0, 1), now), []);
    assert_eq!(shutdown.advance(left(0, 1), now + DRAIN), [Step::Finish]);
    assert_eq!(
        (
            shutdown.summary().clients_cut,
            shutdown.summary().exit_code()
        ),
        (1, 1)
    );
}

#[test]
fn a_process_that_survives_sigkill_is_given_up_on() {
    let mut now = Instant::now();
    let mut shutdown = requested(left(1, 0), now);
    for (wait, step) in [
        (DRAIN, Step::Terminate),
        (TERMINATE_GRACE, Step::Kill),
        (KILL_GRACE, Step::Finish),
    ] {
        now += wait;
        assert_eq!(shutdown.advance(left(1, 0), now), [step]);
    }
    assert!(shutdown.summary().to_string().contains("left=1"));
    assert_eq!(
        shutdown.advance(left(0, 0), now),
        [],
        "nothing follows the end"
    );
}

#[test]
fn a_worker_that_failed_before_shows_in_the_code() {
    let summary = Summary {
        failed: vec!["momentum".into()],
        ..Summary::default()
    };
    assert_eq!(summary.exit_code(), 1);
    assert!(
        summary.to_string().ends_with("failed=momentum"),
        "{summary}"
    );
}
