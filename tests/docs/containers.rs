//! Checks that each block of a Dockerfile or of YAML in docs/containers.md is a part of an example that the page links,
//! and that the examples use the image of this version.

use crate::root;

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns the lines without the indentation that all of them have.
fn dedented(lines: &[&str]) -> Vec<String> {
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    lines.iter().map(|line| line.get(common..).unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_blocks_about_containers_are_parts_of_the_examples() {
    let page = read("docs/containers.md");
    let links = page.split("](../examples/").skip(1).filter_map(|rest| rest.split(')').next());
    let files: Vec<String> = links.map(|link| read(&format!("examples/{link}"))).collect();
    let files: Vec<Vec<&str>> = files.iter().map(|file| file.lines().collect()).collect();

    let mut blocks = 0;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if !matches!(line.trim(), "```dockerfile" | "```yaml") {
            continue;
        }
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        let wanted = dedented(&block);
        let found = files.iter().any(|file| file.windows(block.len()).any(|part| dedented(part) == wanted));
        assert!(found, "no example has these lines:\n{}", block.join("\n"));
        blocks += 1;
    }
    assert!(blocks > 5, "only {blocks} blocks were compared");
}

#[test]
fn links_of_the_page_about_containers_lead_somewhere() {
    let page = read("docs/containers.md");
    let anchors: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-").replace(',', ""))
        .collect();
    for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        match link.strip_prefix('#') {
            Some(anchor) => assert!(anchors.iter().any(|found| found == anchor), "#{anchor}"),
            None => {
                let file = link.split('#').next().unwrap_or_default();
                assert!(root().join("docs").join(file).exists(), "{link}");
            }
        }
    }
}

#[test]
fn the_dockerfiles_copy_kapo_from_this_version() {
    let wanted = format!("kapo:{}", env!("CARGO_PKG_VERSION"));
    for file in ["examples/docker/Dockerfile", "examples/docker/Dockerfile.scratch"] {
        assert!(
            read(file).contains(&format!("\nARG KAPO={wanted}\n")),
            "{file} does not take kapo from {wanted}"
        );
    }
}
