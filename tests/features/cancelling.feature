Feature: Cancelling tasks
  A client can stop what it started, as long as it has not ended.

  Scenario: A waiting task is cancelled and never called
    Given a client of the versioned API
    And a task that calls "/good"
    When it cancels the task
    Then the answer is 204
    And the task is in the archive as "Cancelled"
    And the callback has been called 0 times

  Scenario: A task that runs is cancelled only if the call may be cut off
    Given a client of the versioned API
    And a task that calls "/hang"
    And the task is running
    When it cancels the task
    Then the answer is 409
    And it is told that the task is "Processing"
    When it cancels the task and has the call cut off
    Then the answer is 204
    And the callback's connection is closed
    And the task is in the archive as "Cancelled"

  Scenario: A task that has ended cannot be cancelled
    Given a client of the versioned API
    And a task that calls "/good"
    And the task has been taken
    When it executes the task
    And it cancels the task
    Then the answer is 409
    And it is told that the task is "Completed"
