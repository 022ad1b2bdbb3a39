use super::*;

const RESTART: RestartConfig = RestartConfig {
    policy: RestartPolicy::OnFailure,
    backoff: Duration::from_millis(100),
    backoff_max: Duration::from_millis(1000),
    limit: 20,
    window: Duration::from_secs(60),
};

fn running(restart: RestartConfig, now: Instant) -> Worker {
    let mut worker = Worker::new(restart, 7);
    assert_eq!(worker.handle(Input::Spawned, now), Action::None);
    worker
}

/// Crashes the worker at once and returns the delay until the next start.
fn crash(worker: &mut Worker, now: Instant) -> Duration {
    match worker.handle(Input::Exited { success: false }, now) {
        Action::RestartAfter(delay) => delay,
        other => panic!("expected a restart, got {other:?}"),
    }
}

fn restart(worker: &mut Worker, now: Instant) {
    assert_eq!(worker.handle(Input::RestartDue, now), Action::Spawn);
    assert_eq!(worker.handle(Input::Spawned, now), Action::None);
}

#[test]
fn delays_double_up_to_the_maximum_and_jitter_shortens_them_by_at_most_a_half() {
    let now = Instant::now();
    let mut worker = running(RESTART, now);
    for full in [100, 200, 400, 800, 1000, 1000] {
        let delay = crash(&mut worker, now);
        let full = Duration::from_millis(full);
        assert!(
            delay <= full && delay >= full / 2,
            "delay={delay:?}, full={full:?}"
        );
        restart(&mut worker, now);
    }
    assert_eq!(worker.incarnation(), 7);
}

#[test]
fn a_run_that_stayed_attached_starts_over_with_the_first_delay() {
    let start = Instant::now();
    let mut worker = running(RESTART, start);
    for _ in 0..4 {
        crash(&mut worker, start);
        restart(&mut worker, start);
    }
    assert!(!worker.attached());
    worker.handle(Input::Attached, start);
    assert!(worker.attached());
    let delay = crash(&mut worker, start + Duration::from_millis(1001));
    assert!(delay <= Duration::from_millis(100), "{delay:?}");
}

#[test]
fn a_run_that_never_attached_does_not_reset_the_back_off() {
    let start = Instant::now();
    let mut worker = running(RESTART, start);
    crash(&mut worker, start);
    restart(&mut worker, start);
    let delay = crash(&mut worker, start + Duration::from_secs(5));
    assert!(delay >= Duration::from_millis(100), "{delay:?}");
}

#[test]
fn crashes_within_the_window_stop_the_worker_and_older_ones_do_not_count() {
    let start = Instant::now();
    let config = RestartConfig {
        limit: 3,
        ..RESTART
    };
    let mut worker = running(config, start);
    let mut now = start;
    for _ in 0..5 {
        crash(&mut worker, now);
        now += Duration::from_secs(40);
        restart(&mut worker, now);
    }
    crash(&mut worker, now);
    restart(&mut worker, now);
    let action = worker.handle(Input::Exited { success: false }, now);
    let outcome = Outcome::CrashLoop {
        crashes: 3,
        window: config.window,
    };
    assert_eq!(action, Action::Finish(outcome));
    assert_eq!(worker.state(), State::Ended(outcome));
    assert_eq!(
        worker.handle(Input::RestartDue, now),
        Action::None,
        "it stays ended"
    );
    assert!(
        outcome
            .to_string()
            .contains("crashes=3, restart_window_ms=60000"),
        "{outcome}"
    );
}

#[test]
fn policies_decide_on_clean_ends_and_crashes() {
    let now = Instant::now();
    let ends = |policy, success| {
        running(RestartConfig { policy, ..RESTART }, now).handle(Input::Exited { success }, now)
    };
    assert!(matches!(
        ends(RestartPolicy::Always, true),
        Action::RestartAfter(_)
    ));
    assert!(matches!(
        ends(RestartPolicy::Always, false),
        Action::RestartAfter(_)
    ));
    assert!(matches!(
        ends(RestartPolicy::OnFailure, false),
        Action::RestartAfter(_)
    ));
    assert_eq!(
        ends(RestartPolicy::OnFailure, true),
        Action::Finish(Outcome::Completed { success: true })
    );
    assert_eq!(
        ends(RestartPolicy::Never, false),
        Action::Finish(Outcome::Completed { success: false })
    );
}

#[test]
fn clean_ends_are_no_crash_loop() {
    let now = Instant::now();
    let mut worker = running(
        RestartConfig {
            policy: RestartPolicy::Always,
            limit: 2,
            ..RESTART
        },
        now,
    );
    for _ in 0..50 {
        let action = worker.handle(Input::Exited { success: true }, now);
        assert!(
            matches!(action, Action::RestartAfter(delay) if delay <= Duration::from_millis(100)),
            "{action:?}"
        );
        restart(&mut worker, now);
    }
}

#[test]
fn a_failed_start_counts_as_a_crash() {
    let now = Instant::now();
    let mut worker = Worker::new(
        RestartConfig {
            limit: 2,
            ..RESTART
        },
        1,
    );
    assert!(matches!(
        worker.handle(Input::SpawnFailed, now),
        Action::RestartAfter(_)
    ));
    assert_eq!(worker.handle(Input::RestartDue, now), Action::Spawn);
    assert!(matches!(
        worker.handle(Input::SpawnFailed, now),
        Action::Finish(Outcome::CrashLoop { crashes: 2, .. })
    ));
    assert_eq!(worker.incarnation(), 0);
}

#[test]
fn shutdown_ends_every_state_without_a_restart() {
    let now = Instant::now();
    let stopped = Action::Finish(Outcome::Stopped);
    assert_eq!(
        Worker::new(RESTART, 0).handle(Input::Shutdown, now),
        stopped
    );

    let mut waiting = running(RESTART, now);
    crash(&mut waiting, now);
    assert_eq!(waiting.handle(Input::Shutdown, now), stopped);
    assert_eq!(
        waiting.handle(Input::RestartDue, now),
        Action::None,
        "the late timer changes nothing"
    );

    let mut worker = running(RESTART, now);
    assert_eq!(worker.handle(Input::Shutdown, now), Action::None);
    assert!(worker.has_process());
    assert_eq!(worker.handle(Input::Shutdown, now), Action::None);
    assert_eq!(
        worker.handle(Input::Exited { success: false }, now),
        stopped
    );
    assert!(!worker.has_process());
}

#[test]
fn equal_seeds_give_equal_delays_and_different_seeds_spread_them() {
    let delays = |seed: u64| {
        let mut jitter = Jitter(seed);
        (0..8)
            .map(|_| jitter.shorten(Duration::from_secs(1)))
            .collect::<Vec<_>>()
    };
    assert_eq!(delays(1), delays(1));
    assert_ne!(delays(1), delays(2));
}

#[test]
fn a_worker_is_ready_until_its_process_ends_and_has_been_ready_ever_after() {
    let now = Instant::now();
    let mut worker = running(RESTART, now);
    worker.handle(Input::Attached, now);
    assert!(!worker.is_ready() && !worker.has_been_ready());
    worker.handle(Input::Ready, now);
    assert!(worker.is_ready() && worker.has_been_ready());
    crash(&mut worker, now);
    assert!(!worker.is_ready() && worker.has_been_ready());
    restart(&mut worker, now);
    assert!(!worker.is_ready() && worker.has_been_ready());
}

#[test]
fn a_worker_that_did_what_it_had_to_counts_for_those_after_it() {
    let now = Instant::now();
    for (success, counts) in [(true, true), (false, false)] {
        let policy = RestartPolicy::Never;
        let mut worker = running(RestartConfig { policy, ..RESTART }, now);
        worker.handle(Input::Exited { success }, now);
        assert_eq!(worker.has_been_ready(), counts);
    }
}

#[test]
fn a_worker_whose_dependency_failed_never_starts() {
    let now = Instant::now();
    let mut worker = Worker::new(RESTART, 1);
    let ended = worker.handle(Input::DependencyFailed, now);
    assert_eq!(ended, Action::Finish(Outcome::NeverStarted));
    assert!(Outcome::NeverStarted.is_failure());
    assert_eq!(worker.handle(Input::Shutdown, now), Action::None);
    let mut worker = running(RESTART, now);
    assert_eq!(worker.handle(Input::DependencyFailed, now), Action::None);
    assert!(worker.has_process());
}

#[test]
fn a_successor_with_a_new_configuration_counts_on() {
    let now = Instant::now();
    let mut worker = Worker::resume(RESTART, 1, 4);
    worker.handle(Input::Spawned, now);
    assert_eq!(worker.incarnation(), 5);
    worker.set_restart(RestartConfig {
        policy: RestartPolicy::Never,
        ..RESTART
    });
    let ended = worker.handle(Input::Exited { success: true }, now);
    assert_eq!(ended, Action::Finish(Outcome::Completed { success: true }));
}
