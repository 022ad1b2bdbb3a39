//! `check`: all findings of contracts files.

use std::path::PathBuf;
use std::process::ExitCode;

use mycelium_contracts::{Report, Severity};
use serde_json::json;

use super::{count, print};
use crate::Format;

pub(crate) fn run(files: &[PathBuf], format: Format) -> ExitCode {
    let mut failed = false;
    let mut findings = Vec::new();
    for file in files {
        let loaded = mycelium_contracts::load(file);
        failed |= loaded.is_err();
        let (report, summary) = match &loaded {
            Ok(contracts) => {
                let summary = format!(
                    "ok: {}, {}, {}",
                    count(contracts.messages().len(), "message"),
                    count(contracts.constants().len(), "constant"),
                    count(contracts.report().count(Severity::Warning), "warning"),
                );
                (contracts.report(), summary)
            }
            Err(report) => {
                let errors = count(report.count(Severity::Error), "error");
                let warnings = count(report.count(Severity::Warning), "warning");
                (report, format!("{errors}, {warnings}"))
            }
        };
        match format {
            Format::Json => findings.extend(objects(report)),
            Format::Text => {
                if !report.diagnostics.is_empty() {
                    print(&format!("{report}\n"));
                }
                if files.len() > 1 {
                    print(&format!("{}: {summary}\n", file.display()));
                } else {
                    print(&format!("{summary}\n"));
                }
            }
        }
    }
    if format == Format::Json {
        print(&format!("{:#}\n", serde_json::Value::from(findings)));
    }
    ExitCode::from(u8::from(failed))
}

fn objects(report: &Report) -> impl Iterator<Item = serde_json::Value> {
    report.diagnostics.iter().map(|found| {
        json!({
            "file": report.file.to_string_lossy(),
            "line": found.at.map(|at| at.line),
            "column": found.at.map(|at| at.column),
            "severity": match found.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "text": found.text,
            "hint": found.hint,
        })
    })
}
