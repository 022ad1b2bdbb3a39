//! What a worker's process gets from its configuration, and that nothing it has started is left over.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use common::{Site, WATCHDOG, runtime, wait_until_ended};
use mycelium_bridge::config::{Config, WorkerConfig};
use mycelium_bridge::supervisor::{SpawnError, spawn_worker};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A worker that runs a shell script in the directory of the site, with further keys.
fn shell(script: &str, keys: &str) -> (Site, WorkerConfig) {
    let site = Site::new(
        "",
        &format!("[[worker]]\nname = 'worker'\ncommand = ['sh', '-c', '''{script}''']\n{keys}\n"),
    );
    let config = Config::load(site.config()).unwrap_or_else(|error| panic!("{error}"));
    let worker = config.workers[0].clone();
    (site, worker)
}

/// Runs a worker to its end.
fn run(config: &WorkerConfig) -> Result<ExitStatus, SpawnError> {
    let runtime = runtime();
    runtime.block_on(async {
        let spawned = spawn_worker(config)?;
        let ended = tokio::time::timeout(WATCHDOG, spawned.process.wait());
        Ok(ended.await.expect("the worker ends").expect("its status"))
    })
}

fn lines(site: &Site, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(site.path(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A processor that this process may use.
fn some_cpu() -> usize {
    let usable = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count())
        .rfind(|&cpu| usable.is_set(cpu).unwrap_or(false))
        .expect("a processor")
}

#[test]
fn a_worker_gets_processors_priority_and_limits() {
    let script = "
        grep Cpus_allowed_list /proc/self/status > got
        nice >> got
        ulimit -n >> got; ulimit -c >> got; ulimit -v >> got; ulimit -f >> got; ulimit -t >> got; ulimit -Hn >> got";
    let cpu = some_cpu();
    let keys = format!(
        "cpus = [{cpu}]\nnice = 19\n\
         limits = {{ memory = '4GiB', open_files = 99, core = 0, file_size = '1MiB', cpu_s = 1234 }}"
    );
    let (site, worker) = shell(script, &keys);
    assert!(run(&worker).unwrap().success());
    let expected = [
        format!("Cpus_allowed_list:\t{cpu}"),
        "19".into(),
        "99".into(),
        "0".into(),
        (4 << 20).to_string(),
        // In blocks of 512 bytes.
        "2048".into(),
        "1234".into(),
        "99".into(),
    ];
    assert_eq!(lines(&site, "got"), expected);
}

#[test]
fn a_worker_without_these_keys_inherits_everything() {
    let (site, worker) = shell("ulimit -n > got; nice >> got", "");
    assert!(run(&worker).unwrap().success());
    let own = std::process::Command::new("sh")
        .args(["-c", "ulimit -n; nice"])
        .output()
        .unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    assert_eq!(lines(&site, "got"), own.lines().collect::<Vec<_>>());
}

#[test]
fn a_worker_beyond_its_limit_is_ended_by_the_kernel() {
    let (_site, worker) = shell(
        "exec head -c 1000000 /dev/zero > big",
        "limits = { file_size = '64KiB', core = 0 }",
    );
    assert_eq!(run(&worker).unwrap().signal(), Some(Signal::SIGXFSZ as i32));
}

#[test]
fn a_key_that_cannot_be_applied_is_named_with_its_worker() {
    // The kernel allows no more open files than this to anybody.
    let most: u64 = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (_site, worker) = shell(
        "exit 0",
        &format!("limits = {{ open_files = {} }}", most + 1),
    );
    let error = run(&worker).unwrap_err();
    assert!(matches!(error, SpawnError::Setting { .. }), "{error}");
    let expected = format!(
        "cannot start worker: worker=worker, key=limits.open_files, value={}: ",
        most + 1
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(
        error.to_string().contains("EPERM") || error.to_string().contains("not permitted"),
        "{error}"
    );
}

#[test]
fn the_processors_are_checked_with_the_configuration_and_again_by_the_kernel() {
    // On a thread of its own, which may then use one processor only.
    let cpu = some_cpu();
    let (_site, mut worker) = shell("exit 0", &format!("cpus = [{cpu}]"));
    let mut one = CpuSet::new();
    one.set(cpu).unwrap();
    std::thread::spawn(move || {
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        let site = Site::new(
            "",
            &format!("[[worker]]\nname = 'w'\ncommand = ['sh']\ncpus = [{}]", cpu + 1),
        );
        let error = Config::load(site.config()).unwrap_err().to_string();
        let expected = format!(
            "worker 'w': cpus names a processor that this process may not use: value={}, usable={cpu}",
            cpu + 1
        );
        assert!(error.contains(&expected), "{error}");
    })
    .join()
    .unwrap();
    worker.process.cpus = vec![CpuSet::count() - 1];
    let error = run(&worker).unwrap_err().to_string();
    assert!(
        error.contains("worker=worker, key=cpus, value=["),
        "{error}"
    );
}

#[test]
fn a_cleared_environment_holds_what_the_configuration_gives_and_no_more() {
    let keys = "clear_env = true\nenv_file = 'worker.env'\nenv = { MODE = 'fast' }";
    let place = Site::new("", "");
    let file = "# credentials\n\nTOKEN=a=b c\nMODE=slow\n";
    std::fs::write(place.path("worker.env"), file).unwrap();
    let text = format!("[[worker]]\nname = 'worker'\ncommand = ['env']\n{keys}");
    let keys = std::fs::read_to_string(place.config()).unwrap() + &text;
    std::fs::write(place.config(), keys).unwrap();
    let worker = Config::load(place.config()).unwrap().workers[0].clone();
    assert_eq!(worker.env["TOKEN"], "a=b c");
    assert_eq!(worker.env["MODE"], "fast", "env goes before env_file");

    let (site, mut shell) = shell("env > got", "clear_env = true");
    shell.env = worker.env;
    assert!(run(&shell).unwrap().success());
    let mut names: Vec<_> = lines(&site, "got")
        .iter()
        .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
        // The shell adds these itself.
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()))
        .collect();
    names.sort();
    let expected = [
        "MODE",
        "MYCELIUM_FD",
        "MYCELIUM_TREE",
        "MYCELIUM_WORKER",
        "PYTHONUNBUFFERED",
        "TOKEN",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_bad_environment_file_is_reported_by_line_and_never_shown() {
    let site = Site::new("", "");
    let text = std::fs::read_to_string(site.config()).unwrap()
        + "[[worker]]\nname = 'w'\ncommand = ['sh']\nenv_file = 'secrets'\n";
    std::fs::write(site.config(), text).unwrap();
    let missing = Config::load(site.config()).unwrap_err().to_string();
    assert!(
        missing.contains("worker 'w': cannot read env_file"),
        "{missing}"
    );
    std::fs::write(site.path("secrets"), "GOOD=1\nhunter2\nMYCELIUM_FD=3\n").unwrap();
    let error = Config::load(site.config()).unwrap_err().to_string();
    for line in ["line=2", "line=3"] {
        assert!(error.contains(line), "{error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn what_left_the_group_of_a_worker_ends_with_it_and_its_output_delays_nothing() {
    let script = "setsid sleep 1000 & echo $! > daemon; sleep 1000 & echo $! > child; exit 0";
    let (site, worker) = shell(script, "");
    assert!(run(&worker).unwrap().success());
    wait_until_ended(site.number("daemon"));
    wait_until_ended(site.number("child"));
}

#[test]
fn a_descendant_without_the_mark_that_holds_the_output_delays_nothing_for_good() {
    let script = "env -i setsid sleep 1000 & echo $! > daemon; exit 0";
    let (site, worker) = shell(script, "");
    assert!(run(&worker).unwrap().success());
    // It may not have left the group before the worker ended; if it has, it is ours to end.
    let daemon = Pid::from_raw(site.number("daemon"));
    let _ = kill(daemon, Signal::SIGKILL);
    wait_until_ended(daemon.as_raw());
}
