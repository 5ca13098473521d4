//! The application that the cluster tests deploy: a small HTTP server, or what its `MODE` makes of it. Compiled by
//! the tests as a static binary, with nothing but the standard library.

use std::{
    env,
    io::{Read, Write},
    net::TcpListener,
    process::exit,
};

fn main() {
    let mode = env::var("MODE").unwrap_or_default();
    println!("starting in mode {mode:?}");
    if mode == "crash" {
        for line in 0..80 {
            println!("line {line}");
        }
        println!("cannot open the database: connection refused");
        exit(3);
    }
    if mode == "leak" {
        // Another text each time, so that two runs can be told apart.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        println!("run {}", now.expect("after 1970").as_nanos());
        println!("connecting to postgres://shop:hunter2@db:5432/shop, password=hunter2");
        println!("licence {}", env::var("LICENCE_KEY").unwrap_or_default());
        println!("\x1b[31mAuthorization: Bearer abcdef0123456789\x1b[0m");
        exit(4);
    }
    if mode == "migrate" {
        println!("3 tables migrated");
        exit(0);
    }
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap_or(0);
        let text = String::from_utf8_lossy(&request[..read]);
        let path = text.split(' ').nth(1).unwrap_or("/");
        let (status, body) = match (path, mode.as_str()) {
            ("/health", "sick") => ("503 Service Unavailable", "the till is stuck"),
            ("/health", _) => ("200 OK", "all is well"),
            _ => ("404 Not Found", "no such page"),
        };
        println!("GET {path}: {status}");
        if path == "/crash" {
            println!("falling over");
            exit(5);
        }
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes());
    }
}
