//! `corenvr gb28181`: devices that register with us, what to type into their pages, and what their own archives hold.

use corenvr_media::WallTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Failure,
    args::{DeviceArg, DeviceRecordsArgs, Gb28181Command, Output},
    output,
    views::show_span,
    when,
};
use crate::{
    admin::{
        api::{DeviceList, RecordList, SetupView},
        client::Client,
    },
    config::values::show_size,
};

const DEVICES: &str = "/api/v1/gb28181/devices";
/// A device that answers only in parts is waited for.
const PATIENCE: &str = "asking the device ...";

/// A device, as the API tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    id: String,
    online: bool,
    since: Option<WallTime>,
    address: String,
    transport: String,
    manufacturer: Option<String>,
    model: Option<String>,
    catalog: String,
    channels: Vec<Channel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Channel {
    id: String,
    name: String,
    camera: bool,
    online: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refused {
    id: String,
    address: String,
    last: Option<WallTime>,
    count: u64,
    why: String,
}

fn read<T: for<'de> Deserialize<'de> + Default>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_default()
}

/// Does what is asked.
pub fn run(command: &Gb28181Command) -> Result<(), Failure> {
    match command {
        Gb28181Command::Devices(out) => devices(out),
        Gb28181Command::Setup(out) => setup(out),
        Gb28181Command::Show(args) => show(args),
        Gb28181Command::Catalog(args) => catalog(args),
        Gb28181Command::Records(args) => records(args),
    }
}

fn client(out: &Output) -> Result<Client, Failure> {
    Ok(Client::from_config(&out.config.config)?)
}

fn devices(out: &Output) -> Result<(), Failure> {
    let client = client(out)?;
    if out.json {
        output::json(&client.get::<Value>(DEVICES)?);
        return Ok(());
    }
    let list: DeviceList = client.get(DEVICES)?;
    let zone = TimeZone::system();
    if list.devices.is_empty() {
        output::line("No device has registered. `corenvr gb28181 setup` prints what to type into its page.");
    }
    for device in list.devices.iter().map(read::<Device>) {
        print_device(&device, &zone);
    }
    if !list.refused.is_empty() {
        output::line("\nRefused:");
        let mut rows = vec![
            ["DEVICE", "ADDRESS", "LAST", "TIMES", "WHY"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for r in list.refused.iter().map(read::<Refused>) {
            let last = r.last.map_or_else(|| "-".into(), |t| when::show(t, &zone));
            rows.push(vec![r.id, r.address, last, r.count.to_string(), r.why]);
        }
        output::table(&rows);
        output::line("To let one in: corenvr camera add NAME gb28181://DEVICE");
    }
    Ok(())
}

fn print_device(device: &Device, zone: &TimeZone) {
    let since = device.since.map_or_else(|| "-".into(), |t| when::show(t, zone));
    let maker: Vec<_> = [&device.manufacturer, &device.model]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    output::line(&format!(
        "{}  {} since {since}, {} over {}, {}, catalog {}",
        device.id,
        if device.online { "online" } else { "offline" },
        device.address,
        device.transport.to_uppercase(),
        if maker.is_empty() {
            "maker unknown".into()
        } else {
            maker.join(" ")
        },
        device.catalog,
    ));
    let rows: Vec<_> = device
        .channels
        .iter()
        .map(|c| {
            let state = match (c.camera, c.online) {
                (false, _) => "not a camera",
                (true, Some(false)) => "off",
                (true, _) => "camera",
            };
            vec![format!("  {}", c.id), state.to_owned(), c.name.clone()]
        })
        .collect();
    output::table(&rows);
}

fn setup(out: &Output) -> Result<(), Failure> {
    let client = client(out)?;
    if out.json {
        output::json(&client.get::<Value>("/api/v1/gb28181/setup")?);
        return Ok(());
    }
    let s: SetupView = client.get("/api/v1/gb28181/setup")?;
    output::line("Type this into the GB28181 page of the camera or recorder (Platform Access, GB/T 28181):\n");
    let rows = [
        ("SIP server address", s.server_ip.clone()),
        ("SIP server port", s.server_port.to_string()),
        ("SIP server ID", s.server_id),
        ("SIP domain (realm)", s.domain),
        ("User name", "the device's own ID, 20 digits".to_owned()),
        ("Password", s.password),
        ("Heartbeat interval", format!("{} s, 3 misses", s.keepalive_s)),
        ("Registration validity", format!("{} s", s.expires_s)),
        ("Signalling", "UDP or TCP, both work".to_owned()),
    ];
    let rows: Vec<_> = rows.into_iter().map(|(k, v)| vec![format!("  {k}"), v]).collect();
    output::table(&rows);
    output::line(&format!(
        "\nA firewall has to let in port {} (UDP and TCP) and the media ports {} (UDP and TCP).\n\
        Then add it here, which lets it in: corenvr camera add NAME gb28181://DEVICE_ID",
        s.server_port, s.media_ports
    ));
    Ok(())
}

fn show(args: &DeviceArg) -> Result<(), Failure> {
    let client = client(&args.output)?;
    let answer: Value = client.get(&format!("{DEVICES}/{}", args.device))?;
    if args.output.json {
        output::json(&answer);
        return Ok(());
    }
    print_device(&read(&answer["device"]), &TimeZone::system());
    let status = &answer["status"];
    if let Some(error) = status["error"].as_str() {
        output::line(&format!("  status: {error}"));
        return Ok(());
    }
    let word = |key: &str| match &status[key] {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if !text.is_empty() => text.clone(),
        _ => "not told".to_owned(),
    };
    output::line(&format!(
        "  encodes {}, records {}, works {}, its clock {}",
        word("encodes"),
        word("records"),
        word("ok"),
        word("time")
    ));
    Ok(())
}

fn catalog(args: &DeviceArg) -> Result<(), Failure> {
    let client = client(&args.output)?;
    if !args.output.json {
        output::line(PATIENCE);
    }
    let answer: Value = client.send("POST", &format!("{DEVICES}/{}/catalog", args.device), &Value::Null)?;
    if args.output.json {
        output::json(&answer);
    } else {
        print_device(&read(&answer), &TimeZone::system());
    }
    Ok(())
}

fn records(args: &DeviceRecordsArgs) -> Result<(), Failure> {
    let (now, zone) = (when::now(), TimeZone::system());
    let from = when::parse(&args.from, now, &zone)?;
    let to = args.to.as_ref().map_or(Ok(now), |t| when::parse(t, now, &zone))?;
    if from >= to {
        return Err(when::WhenError::Backward { from, to }.into());
    }
    let client = client(&args.output)?;
    let channel = args.channel.as_ref().unwrap_or(&args.device);
    let path = format!(
        "{DEVICES}/{}/records?channel={channel}&from={from}&to={to}",
        args.device
    );
    if args.output.json {
        output::json(&client.get::<Value>(&path)?);
        return Ok(());
    }
    output::line(PATIENCE);
    let list: RecordList = client.get(&path)?;
    let mut rows = Vec::new();
    for r in &list.records {
        rows.push(vec![
            when::show(r.start, &zone),
            when::show(r.end, &zone),
            show_span(r.end.saturating_since(r.start).as_secs()),
            r.kind.clone().unwrap_or_else(|| "-".into()),
            r.bytes.map_or_else(|| "-".into(), show_size),
        ]);
    }
    output::table(&rows);
    output::line(&match (list.records.len(), list.complete) {
        (0, true) => "The device holds nothing of this time.".to_owned(),
        (1, true) => "1 recording".to_owned(),
        (n, true) => format!("{n} recordings"),
        (n, false) => format!("{n} recordings came, and the device has announced more"),
    });
    Ok(())
}
