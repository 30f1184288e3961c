"""SES email receiving: rules, their matching and execution, IP filters, verdicts. Pure.

`model` has the rules and actions, `shapes` converts them from and to the API's form, `constraints`
validates them, `matching` finds the rules of a recipient, `plan` determines the next step,
`filters` checks IP addresses, `dmarc` and `verdicts` have the results of checks, `published` and
`events` build the content and the notifications of actions.
"""
