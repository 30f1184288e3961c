"""Tests with the standard library alone: a server for the class, emptied after each test."""

import unittest
from datetime import timedelta

from sendback.testing import MailRefusedError, Sendback


class BounceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Sendback(bounce_window=timedelta(hours=24)).start()
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        self.server.verify("example.com")

    def tearDown(self):
        self.server.reset()

    def bounce(self, message_id):
        self.server.ses.send_bounce(
            OriginalMessageId=message_id,
            BounceSender="mailer-daemon@example.com",
            BouncedRecipientInfoList=[
                {"Recipient": "bob@example.com", "BounceType": "MessageTooLarge"}
            ],
        )

    def test_the_sender_gets_a_report(self):
        received = self.server.receive(sender="ann@sender.example", recipients="bob@example.com")
        self.bounce(received)
        bounce = self.server.bounces.wait_for(original=received)
        self.assertEqual(bounce.to, "ann@sender.example")
        self.assertEqual(bounce.dsn.actions, ("failed",))
        self.assertEqual(bounce.dsn.statuses, ("5.3.4",))

    def test_mail_for_other_domains_is_refused(self):
        with self.assertRaises(MailRefusedError) as caught:
            self.server.receive(recipients="bob@other.example")
        self.assertEqual(caught.exception.code, 550)

    def test_a_day_later_it_is_too_late(self):
        received = self.server.receive(recipients="bob@example.com")
        self.server.clock.advance(hours=25)
        with self.assertRaises(self.server.ses.exceptions.MessageRejected):
            self.bounce(received)
        self.assertEqual(len(self.server.bounces), 0)


if __name__ == "__main__":
    unittest.main()
