# Signs the mail on standard input with Perl's Mail::DKIM: DOMAIN SELECTOR KEYFILE.
use strict;
use warnings;
use Mail::DKIM::Signer;

my ($domain, $selector, $key) = @ARGV;
my $signer = Mail::DKIM::Signer->new(
    Algorithm => "rsa-sha256",
    Method    => "relaxed/relaxed",
    Domain    => $domain,
    Selector  => $selector,
    KeyFile   => $key,
);
binmode STDIN;
binmode STDOUT;
local $/;
my $mail = <STDIN>;
$signer->PRINT($mail);
$signer->CLOSE;
print $signer->signature->as_string, "\015\012", $mail;
