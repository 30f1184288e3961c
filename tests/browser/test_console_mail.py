"""The console's mail, in a browser."""

from tests.browser.look import defects, shoot


def test_a_message_is_opened_beside_the_list(server, page):
    message_id = server.send_mail()
    page.goto(f"{server.endpoint}/console/")
    page.locator(f"#row-{message_id} a").click()
    page.get_by_text("Received for one recipient").wait_for()
    assert page.url.endswith(f"/console/mail/{message_id}")
    shoot(page, "mail")
    assert defects(page) == []
