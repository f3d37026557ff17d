//! Checks that the runbook has a section for each alert rule and each Reason, and that each rule links to its section.

use kapo::logic::reason::Reason;

use crate::root;

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).expect("the file is there")
}

/// Returns the third-level headings under this second-level heading.
fn sections<'a>(page: &'a str, chapter: &str) -> Vec<&'a str> {
    let (_, rest) = page.split_once(&format!("\n## {chapter}\n")).expect("the page has this chapter");
    let chapter = rest.split("\n## ").next().unwrap_or_default();
    chapter.lines().filter_map(|line| line.strip_prefix("### ")).collect()
}

/// Returns the text after this key, for each line that has it.
fn values<'a>(rules: &'a str, key: &str) -> Vec<&'a str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix(key)).collect()
}

#[test]
fn the_runbook_has_each_alert_rule() {
    let (page, rules) = (read("docs/operations.md"), read("examples/prometheus/alerts.yml"));
    let mut alerts = values(&rules, "- alert: ");
    let urls: Vec<String> =
        alerts.iter().map(|alert| format!("\"docs/operations.md#{}\"", alert.to_lowercase())).collect();
    assert_eq!(values(&rules, "runbook_url: "), urls);
    let mut found = sections(&page, "Alerts");
    alerts.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, alerts);
}

#[test]
fn the_runbook_has_each_reason() {
    let page = read("docs/operations.md");
    assert_eq!(sections(&page, "Reasons"), Reason::ALL.map(Reason::name));
}

#[test]
fn each_section_of_the_runbook_says_what_to_do() {
    let page = read("docs/operations.md");
    let (_, entries) = page.split_once("\n## Alerts\n").expect("the page has this chapter");
    for section in entries.split("\n### ").skip(1) {
        for part in ["**Means:**", "**Look at:**", "**Do:**"] {
            assert_eq!(section.matches(part).count(), 1, "{part} in {section}");
        }
    }
}

/// Returns the anchor that GitHub generates for a heading of plain words.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-").replace(',', "")
}

#[test]
fn links_within_the_runbook_lead_somewhere() {
    let page = read("docs/operations.md");
    let anchors: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect();
    let links: Vec<&str> = page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(!links.is_empty());
    for link in links {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link}");
    }
}
