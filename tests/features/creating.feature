Feature: Creating tasks
  A client hands a task in and can forget about it: it is stored before it is answered.

  Scenario Outline: A task is accepted and waits
    Given a client of the <dialect> API
    When it creates a task that calls "/good"
    Then the answer is 201
    And it is told the task's id and that it is "Queued"
    And the task is found as "Queued"
    And the callback has been called 0 times

    Examples:
      | dialect     |
      | versioned   |
      | unversioned |

  Scenario Outline: A missing field is named
    Given a client of the <dialect> API
    When it creates a task without "<field>"
    Then the answer is 400
    And the field "/<field>" is named as missing
    And no task has been stored

    Examples:
      | dialect     | field       |
      | versioned   | name        |
      | versioned   | callbackUrl |
      | unversioned | callbackUrl |

  Scenario: A batch with one bad task is refused whole
    Given a client of the versioned API
    When it creates a batch of 3 tasks of which the 2nd lacks "callbackUrl"
    Then the answer is 400
    And the field "/tasks/1/callbackUrl" is named as missing
    And no task has been stored

  Scenario: A repeated request creates one task
    Given a client of the versioned API
    When it creates the same task twice with one idempotency key
    Then both answers name the same task
    And 1 task has been stored
