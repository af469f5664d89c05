//! What is drawn, on a terminal that is memory, and what keys do.

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::top::rows::tests::{edge, pod, rates};

fn screen() -> Screen {
    let mut screen = Screen::new(View::Services, Sort::Rate, None);
    let edges = vec![edge("source", "web", "cart", 200), edge("source", "web", "stock", 20)];
    screen.update(Ok((rates(edges), vec![pod("web")])));
    screen
}

fn drawn(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    let text = terminal.backend().to_string();
    text.lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect()
}

fn press(screen: &mut Screen, keys: &[KeyCode]) {
    for key in keys {
        assert_eq!(screen.press(KeyEvent::from(*key)), Next::Draw, "{key:?}");
    }
}

#[test]
fn services_are_drawn_with_a_title_figures_and_a_line_of_help() {
    let lines = drawn(&screen(), 120, 6);
    assert_eq!(lines[0], "undermesh top  node a  services  by rate");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let head = [&["SIDE", "NAMESPACE", "SERVICE"][..], &MEASURES].concat();
    assert_eq!(words(&lines[1]), head);
    let cart = "client shop cart 100 0 0 90.0% 5.0 ms 9.5 ms 9.9 ms 100 B 300.0 kB";
    assert_eq!(words(&lines[2]).join(" "), cart);
    assert!(lines[3].starts_with("client shop      stock "), "{lines:?}");
    assert_eq!(lines[5], HELP);
}

#[test]
fn columns_stand_below_their_heads() {
    let lines = drawn(&screen(), 120, 6);
    for head in MEASURES {
        let end = lines[1].find(head).unwrap() + head.len();
        for line in &lines[2..4] {
            let (before, after) = line.split_at(end.min(line.len()));
            assert!(!before.ends_with(' ') && !after.starts_with(|c: char| c != ' '), "{line:?}");
        }
    }
}

#[test]
fn keys_choose_the_view_the_order_and_the_namespace() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Char('2'), KeyCode::Char('s')]);
    assert_eq!(drawn(&screen, 150, 5)[0], "undermesh top  node a  edges  by success");
    assert!(drawn(&screen, 150, 5)[2].contains("shop/web"));
    press(&mut screen, &[KeyCode::Tab]);
    assert!(drawn(&screen, 150, 5)[2].starts_with("shop/web-0 enrolled"));
    press(&mut screen, &[KeyCode::Char('n'), KeyCode::Char('q'), KeyCode::Char('x')]);
    assert_eq!(drawn(&screen, 150, 5)[4], "namespace (empty: all): qx_");
    press(&mut screen, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(drawn(&screen, 150, 5)[0], "undermesh top  node a  pods  by success  namespace q");
    assert_eq!(drawn(&screen, 150, 5)[2], "");
    press(&mut screen, &[KeyCode::Char('n'), KeyCode::Enter]);
    assert!(drawn(&screen, 150, 5)[2].starts_with("shop/web-0"));
    press(&mut screen, &[KeyCode::Char('n'), KeyCode::Char('x'), KeyCode::Esc]);
    assert_eq!(screen.namespace, None);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for quit in [KeyEvent::from(KeyCode::Char('q')), KeyEvent::from(KeyCode::Esc), control_c] {
        assert_eq!(screen.press(quit), Next::Quit);
    }
}

#[test]
fn a_pause_keeps_what_is_shown_and_its_end_goes_on() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Char('p')]);
    screen.update(Ok((rates(vec![edge("source", "web", "new", 2)]), Vec::new())));
    let lines = drawn(&screen, 120, 6);
    assert!(lines[0].ends_with("PAUSED") && lines[2].contains(" cart "), "{lines:?}");
    press(&mut screen, &[KeyCode::Char('p')]);
    screen.update(Ok((rates(vec![edge("source", "web", "new", 2)]), Vec::new())));
    let lines = drawn(&screen, 120, 6);
    assert!(!lines[0].contains("PAUSED") && lines[2].contains(" new "), "{lines:?}");
}

#[test]
fn an_agent_that_does_not_answer_is_said_and_what_was_known_stays() {
    let mut screen = screen();
    screen.update(Err("nobody there".to_owned()));
    let lines = drawn(&screen, 120, 6);
    assert!(lines[0].ends_with("NO ANSWER: nobody there") && lines[2].contains(" cart "));
}

#[test]
fn scrolling_ends_with_the_last_row_and_a_small_terminal_is_no_panic() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::PageDown, KeyCode::Down]);
    assert!(drawn(&screen, 120, 6)[2].contains(" stock "));
    assert_eq!(drawn(&screen, 120, 6)[3], "");
    press(&mut screen, &[KeyCode::Up]);
    assert!(drawn(&screen, 120, 6)[2].contains(" cart "));
    for (width, height) in [(1, 1), (10, 2), (40, 3), (300, 100)] {
        drawn(&screen, width, height);
    }
}

#[test]
fn names_do_not_tell_the_terminal_what_to_do() {
    let mut screen = screen();
    let mut evil = edge("source", "web", "cart", 2);
    evil.destination.service_name = "a\u{1b}[2Jb\nc".to_owned();
    screen.update(Ok((rates(vec![evil]), Vec::new())));
    assert!(drawn(&screen, 120, 6).iter().all(|line| !line.contains(['\u{1b}', '\n'])));
}
