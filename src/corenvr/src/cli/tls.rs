//! `corenvr tls`: make a certificate, show those that are configured.

use corenvr_shard::tls::Identity;
use serde_json::json;

use super::{
    Failure,
    args::{Output, SelfSignedArgs, TlsCommand},
    output,
};
use crate::{
    config,
    tls::{self, certificate::Facts, self_signed},
};

/// Does what the command says.
pub fn run(command: &TlsCommand) -> Result<(), Failure> {
    match command {
        TlsCommand::SelfSigned(args) => make(args),
        TlsCommand::Show(out) => show(out),
    }
}

fn make(args: &SelfSignedArgs) -> Result<(), Failure> {
    let names = self_signed::names_of_this_machine(&args.name);
    let made = self_signed::make(&args.dir, &names, args.days).map_err(|e| Failure::Failed(e.to_string()))?;
    let facts = Facts::read(&made.der).map_err(|e| Failure::Failed(e.to_string()))?;
    let (cert, key) = (made.cert.display(), made.key.display());
    output::line(&format!("Made {cert} and {key}"));
    output::line(&format!("  for      {}", facts.names.join(", ")));
    output::line(&format!("  until    {}", facts.not_after));
    output::line(&format!("  SHA-256  {}", made.fingerprint));
    if !made.for_service {
        output::line(&format!(
            "\nOnly this user may read the key. The service needs it as well: chgrp corenvr {key} && chmod 640 {key}"
        ));
    }
    output::line(&format!(
        "\nWrite into corenvr.toml, then restart corenvr:\n\n\
         [rtsp]\nrtsps_listen = [\"[::]:322\"]\ncert = \"{cert}\"\nkey = \"{key}\"\n\n\
         [http]\nhttps_listen = [\"[::]:8443\"]\ncert = \"{cert}\"\nkey = \"{key}\"\n\n\
         Nobody else has signed it: players and browsers ask whether to trust it. Compare the SHA-256 above before you say yes."
    ));
    Ok(())
}

fn show(out: &Output) -> Result<(), Failure> {
    let loaded = config::load_alone(&out.config.config).map_err(|e| Failure::Failed(e.to_string()))?;
    let configured = tls::configured(&loaded.config);
    if configured.is_empty() && !out.json {
        output::line("No certificate is configured. `corenvr tls self-signed` makes one.");
        return Ok(());
    }
    let mut documents = Vec::new();
    let mut failed = false;
    for (section, cert, key) in &configured {
        // The key is not needed for this, and not everybody may read it.
        match Identity::read_chain(cert) {
            Ok(chain) => {
                let facts: Vec<Facts> = chain.iter().filter_map(|der| Facts::read(der).ok()).collect();
                if !out.json {
                    output::line(&format!("{section}  {}", cert.display()));
                    facts.iter().for_each(print);
                }
                documents.push(json!({ "section": section, "cert": cert, "key": key, "chain": facts }));
            }
            Err(error) => {
                failed = true;
                if !out.json {
                    output::line(&format!("{section}  {error}"));
                }
                documents.push(json!({ "section": section, "cert": cert, "key": key, "error": error.to_string() }));
            }
        }
    }
    if out.json {
        output::json(&documents);
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}

fn print(facts: &Facts) {
    output::line(&format!("  subject  {}", facts.subject));
    let issuer = if facts.self_signed { "itself" } else { &facts.issuer };
    output::line(&format!("  issuer   {issuer}"));
    output::line(&format!("  names    {}", facts.names.join(", ")));
    output::line(&format!("  valid    {} to {}", facts.not_before, facts.not_after));
    output::line(&format!("  SHA-256  {}\n", facts.fingerprint));
}
