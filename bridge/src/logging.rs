//! The log of the program: text for people or one JSON object per line for machines, on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::Error as ReloadError;

use queue::Queue;

mod queue;

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// One flat JSON object per line.
    Json,
}

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter directives do not parse.
    #[error("log filter is not valid: value='{filter}': {source}")]
    Filter {
        /// The directives.
        filter: String,
        /// What is wrong with them.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The system has no thread that writes.
    #[error("log has no thread of its own: {0}")]
    Thread(#[from] io::Error),
    /// The process logs somewhere else already.
    #[error("log is set up already: {0}")]
    AlreadySet(#[from] tracing::subscriber::SetGlobalDefaultError),
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), ReloadError> + Send + Sync>;

/// Puts another filter in the place of the one that the log has, once it is set up.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Whether the filter stays whatever the configuration says.
static IS_FIXED: AtomicBool = AtomicBool::new(false);

/// What waits for standard error, once the log is set up.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// How long the last lines are waited for.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// Lines of the log that standard error has not taken since the process began: nobody reads it, it is closed, or its
/// disk is full.
#[must_use]
pub fn lines_lost() -> u64 {
    QUEUE.get().map_or(0, Queue::lost)
}

/// Waits until standard error has all that was logged, but no longer than a second. To be called before the process
/// ends, and before it writes to standard error itself.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIME);
    }
}

/// Hands lines to the queue. A log that nobody reads must neither end nor stop what it is about.
struct Handover(Queue);

impl Write for Handover {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why the log keeps its filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The filter directives do not parse.
    #[error(transparent)]
    Filter(#[from] LoggingError),
    /// It was given on the command line.
    #[error("filter of the log was given on the command line; start without --log")]
    Fixed,
    /// The log belongs to the host of the bridge.
    #[error("log was not set up by the bridge; its host has to change the filter")]
    NotOurs,
    /// The log is gone.
    #[error("filter of the log cannot be changed: {0}")]
    Gone(#[from] ReloadError),
}

/// Keeps the filter from here on: it was given on the command line.
pub fn fix_filter() {
    IS_FIXED.store(true, Ordering::Relaxed);
}

/// Gives the log another filter while the process runs.
///
/// # Errors
/// [`FilterError`]; the log keeps the filter that it has.
pub fn set_filter(filter: &str) -> Result<(), FilterError> {
    let env_filter = parse(filter)?;
    if IS_FIXED.load(Ordering::Relaxed) {
        return Err(FilterError::Fixed);
    }
    let set = SET_FILTER.get().ok_or(FilterError::NotOurs)?;
    Ok(set(env_filter)?)
}

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.map_err(|source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    })
}

/// Sends the log of the whole process to standard error. `filter` is a level (`info`) or directives
/// (`info,worker=debug`); what workers print has the target `worker`. Who logs never waits for standard error: a thread
/// writes the lines, of which up to 4 MiB wait for it. See [`flush`].
///
/// # Errors
/// [`LoggingError`].
pub fn init(filter: &str, format: LogFormat) -> Result<(), LoggingError> {
    let queue = Queue::default();
    queue.start(io::stderr(), |lost| {
        tracing::warn!(lost, "lines of the log are lost, because nobody read it");
    })?;
    let lines = queue.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(move || Handover(lines.clone()))
        // They would go to standard error by a macro that panics where that is closed.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let set_filter: SetFilter = match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            tracing::subscriber::set_global_default(builder.finish())?;
            Box::new(move |filter| handle.reload(filter))
        }
        LogFormat::Json => {
            let builder = builder.event_format(JsonLines).with_filter_reloading();
            let handle = builder.reload_handle();
            tracing::subscriber::set_global_default(builder.finish())?;
            Box::new(move |filter| handle.reload(filter))
        }
    };
    // Whoever set up the log is the only one to get here.
    let _ = SET_FILTER.set(set_filter);
    let _ = QUEUE.set(queue);
    Ok(())
}

/// One JSON object per event with `timestamp`, `level`, `target`, `message` and the event's own fields at the top level,
/// where log collectors look for them. An event field of one of these four names gets an underscore in front.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        let mut object = Map::new();
        object.insert("timestamp".into(), timestamp.into());
        object.insert("level".into(), metadata.level().as_str().into());
        object.insert("target".into(), metadata.target().into());
        event.record(&mut JsonFields(&mut object));
        writeln!(writer, "{}", Value::Object(object))
    }
}

struct JsonFields<'m>(&'m mut Map<String, Value>);

impl JsonFields<'_> {
    fn insert(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            reserved @ ("timestamp" | "level" | "target") => format!("_{reserved}"),
            name => name.to_owned(),
        };
        self.0.insert(name, value);
    }
}

impl Visit for JsonFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.insert(field, value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_is_one_flat_object_with_typed_fields() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(JsonLines)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                worker = "momentum",
                pid = 7_u32,
                level = "mine",
                "exited with \"1\"\n"
            );
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["_level"], "mine");
        assert_eq!(line["worker"], "momentum");
        assert_eq!(line["pid"], 7);
        assert_eq!(line["message"], "exited with \"1\"\n");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = init("info,=,,loud=extremely", LogFormat::Text).unwrap_err();
        assert!(
            error.to_string().contains("value='info,=,,loud=extremely'"),
            "{error}"
        );
    }
}
