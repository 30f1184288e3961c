// A subscriber that validates a message of SNS: node validate_sns.cjs FILE HOST
// Trusts certificates from HOST (with its port) only. Prints "valid", or the error.
const fs = require("fs");
const MessageValidator = require("sns-validator");

const [file, host] = process.argv.slice(2);
const escaped = host.replace(/[.]/g, "\\.");
const validator = new MessageValidator(new RegExp(`^${escaped}$`));
validator.validate(fs.readFileSync(file, "utf8"), (error) => {
  console.log(error ? error.message : "valid");
});
